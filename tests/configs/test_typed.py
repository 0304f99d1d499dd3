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
