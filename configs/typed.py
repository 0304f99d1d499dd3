"""Plain dataclasses <-> OmegaConf: the one crossing, so that no library ever sees a DictConfig.

OmegaConf knows neither `Literal` nor `__post_init__` checks, and turns tuples into lists. So Hydra composes a *twin*
of each dataclass (same fields and defaults, types that OmegaConf can check), and `build` makes the real one from the
composed values, which runs its own validation.
"""

import copy
import dataclasses
import types
import typing
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

Record = TypeVar("Record")


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
        fields.append(
            (field.name, _held(hints[field.name]), dataclasses.field(default_factory=_Copy(_hold(default))))
        )
    return dataclasses.make_dataclass(cls.__name__, fields)


def build(cls: type[Record], values: Any, path: str = "") -> Record:
    """The real dataclass from composed plain values; ValueError names the field that cannot be."""
    hints = typing.get_type_hints(cls)
    if unknown := sorted(set(values) - set(hints)):
        raise ValueError(f"{path}{unknown[0]} is no setting.")
    made = {name: _value(hints[name], value, f"{path}{name}") for name, value in values.items()}
    return cls(**made)


@dataclasses.dataclass(frozen=True)
class _Copy:
    """A default factory: lists and records of one config are never shared with another."""

    value: Any

    def __call__(self) -> Any:
        return copy.deepcopy(self.value)


def _held(hint: Any) -> Any:
    """The type that OmegaConf checks instead of `hint`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return type(args[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(_held(arg) for arg in args)]  # noqa: UP007 (built at run time)
    if origin is tuple:
        return list[_held(args[0])]
    if origin is list:
        return list[_held(args[0])]
    if dataclasses.is_dataclass(hint):
        return twin(hint)  # type: ignore[arg-type]
    return hint


def _hold(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = {f.name: _hold(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return twin(type(value))(**values)
    return list(value) if isinstance(value, tuple) else value


def _value(hint: Any, value: Any, path: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if origin is Literal and value not in args:
        raise ValueError(f"{path} is {value!r}; it must be one of {', '.join(map(str, args))}.")
    if origin in (Union, types.UnionType):
        return _value(next((arg for arg in args if arg is not type(None)), Any), value, path)
    if origin is tuple:
        return tuple(value)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, f"{path}.")  # type: ignore[arg-type]
    return value
