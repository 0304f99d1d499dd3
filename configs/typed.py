"""Converts between plain dataclasses and OmegaConf, so that the rest of the code needs no DictConfig.

OmegaConf supports neither `Literal` nor `__post_init__`, and converts tuples to lists. Hydra therefore composes a twin
of each dataclass: the same fields and defaults, with types that OmegaConf can check. `build` then makes the real
dataclass from the composed values, which checks `Literal` types here and ranges in the dataclass's own `__post_init__`.
"""

import copy
import dataclasses
import math
import types
import typing
from functools import cache, partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

Record = TypeVar("Record")
LARGEST = 2**32 - 1  # of whole numbers


@cache
def twin(cls: type) -> type:
    """The dataclass that OmegaConf holds in place of `cls`, recursively."""
    hints = typing.get_type_hints(cls)
    fields = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        has_factory = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if has_factory else field.default  # type: ignore[misc]
        if default is dataclasses.MISSING:
            raise TypeError(f"{cls.__name__}.{field.name} needs a default: a run without arguments must work")
        factory = partial(copy.deepcopy, _twin_value(default))  # two configs never share a list or a record
        fields.append((field.name, _twin_type(hints[field.name]), dataclasses.field(default_factory=factory)))
    return dataclasses.make_dataclass(cls.__name__, fields)


def build(cls: type[Record], values: Any, path: str = "") -> Record:
    """The real dataclass from composed plain values; ValueError names the first invalid field."""
    hints = typing.get_type_hints(cls)
    if unknown := sorted(set(values) - set(hints)):
        raise ValueError(f"{path}{unknown[0]} is no setting.")
    return cls(**{name: _real_value(hints[name], value, f"{path}{name}") for name, value in values.items()})


def _twin_type(hint: Any) -> Any:
    """The type that OmegaConf checks instead of `hint`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return type(args[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(_twin_type(arg) for arg in args)]  # noqa: UP007 (built at run time)
    if origin in (tuple, list):
        return list[_twin_type(args[0])]
    if dataclasses.is_dataclass(hint):
        return twin(hint)  # type: ignore[arg-type]
    return hint


def _twin_value(value: Any) -> Any:
    """A default value in the form that OmegaConf holds: tuples as lists, dataclasses as their twins."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = {f.name: _twin_value(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return twin(type(value))(**values)
    return list(value) if isinstance(value, tuple) else value


def _real_value(hint: Any, value: Any, path: str, signed: bool = False) -> Any:
    """A composed value in the form that `hint` asks for; ValueError where a `Literal` does not allow it, and for a number
    that no setting can have. signed: whether it may be negative, as the entries of audio.layers.
    """
    origin, args = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if origin is Literal and value not in args:
        raise ValueError(f"{path} is {value!r}; it must be one of {', '.join(map(str, args))}.")
    if origin in (Union, types.UnionType):
        return _real_value(next((arg for arg in args if arg is not type(None)), Any), value, path)
    if origin is tuple:
        return tuple(_real_value(args[0], entry, path, signed=True) for entry in value)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, f"{path}.")  # type: ignore[arg-type]
    if isinstance(value, dict):
        return {key: _real_value(Any, entry, f"{path}.{key}") for key, entry in value.items()}
    _check_number(value, path, signed)
    return value


def _check_number(value: Any, path: str, signed: bool) -> None:
    """ValueError for NaN, infinity, a negative number and a whole one beyond 32 bits: torch and numpy refuse them as a
    seed or a size, each with an error of its own, or compute nonsense.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} is {value}; it must be a finite number.")
    if isinstance(value, (int, float)) and value < 0 and not signed:
        raise ValueError(f"{path} is {value}; it cannot be negative.")
    if isinstance(value, int) and value > LARGEST:
        raise ValueError(f"{path} is {value}; it must be at most {LARGEST}.")
