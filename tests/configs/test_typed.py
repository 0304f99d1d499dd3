"""configs/typed.py: conversion between dataclasses and OmegaConf."""

from dataclasses import dataclass, field
from typing import Literal

import pytest
from omegaconf import OmegaConf

from configs.typed import build, twin


@dataclass
class Inner:
    kind: Literal["a", "b"] = "a"
    kinds: tuple[Literal["a", "b"], ...] = ("a",)
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if 0 in self.sizes:
            raise ValueError("inner.sizes cannot hold 0")


@dataclass
class Outer:
    inner: Inner = field(default_factory=lambda: Inner(sizes=(3,)))
    rows: tuple[int, int] | None = None
    path: str | None = None


def test_twin_and_build_are_inverse():
    composed = OmegaConf.structured(twin(Outer))
    assert build(Outer, OmegaConf.to_container(composed)) == Outer()
    composed.inner.sizes = [5, 6]
    composed.rows = [3, 8]
    assert build(Outer, OmegaConf.to_container(composed)) == Outer(Inner(sizes=(5, 6)), rows=(3, 8))


@pytest.mark.parametrize(("key", "value"), [("inner.sizes", ["x"]), ("inner.kind", None), ("inner.other", 1)])
def test_twin_refuses_other_types_and_unknown_keys(key, value):
    with pytest.raises(Exception, match=r"inner\.(sizes|kind|other)"):
        OmegaConf.update(OmegaConf.structured(twin(Outer)), key, value)


def test_two_configs_share_no_default():
    first, second = OmegaConf.structured(twin(Outer)), OmegaConf.structured(twin(Outer))
    first.inner.sizes.append(9)
    assert second.inner.sizes == [3]


def test_build_checks_literals_and_the_dataclass_checks_ranges():
    with pytest.raises(ValueError, match=r"inner\.kind is 'c'; it must be one of a, b"):
        build(Outer, {"inner": {"kind": "c"}})
    with pytest.raises(ValueError, match=r"inner\.kinds is 'c'; it must be one of a, b"):
        build(Outer, {"inner": {"kinds": ["a", "c"]}})
    with pytest.raises(ValueError, match="cannot hold 0"):
        build(Outer, {"inner": {"sizes": [0]}})


@dataclass
class Numbers:
    count: int = 1
    rate: float | None = 0.5
    layers: tuple[int, ...] = (-1,)
    limits: dict[str, float | None] = field(default_factory=lambda: {"a": 0.5})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": -1}, "count is -1; it cannot be negative"),
        ({"count": 2**32}, "count is 4294967296; it must be at most"),
        ({"rate": float("nan")}, "rate is nan; it must be a finite number"),
        ({"rate": float("inf")}, "rate is inf"),
        ({"layers": [10**20]}, "layers is 1000"),
        ({"limits": {"a": float("nan")}}, r"limits\.a is nan"),
    ],
)
def test_numbers_that_no_setting_can_have_are_refused(values, words):
    assert build(Numbers, {"count": 0, "rate": None, "layers": [-2]}) == Numbers(0, None, (-2,))
    with pytest.raises(ValueError, match=words):
        build(Numbers, values)
