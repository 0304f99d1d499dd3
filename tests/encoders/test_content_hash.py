"""content_hash: different contents, different hashes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from encoders.content_hash import content_hash


def test_content_hash_tells_contents_apart():
    @dataclasses.dataclass
    class Config:
        x: int = 1

    array = np.arange(6, dtype=np.float32)
    parts = [
        ("ab", "c"), ("a", "bc"), ("abc",), (b"abc",), (1,), (1.0,), (True,), ("1",), (None,), (["a"], "b"), (["a", "b"],),
        (array,), (array.reshape(2, 3),), (array.astype(np.float64),), ({"x": 1},), (Config(),), (Config(2),), (),
    ]  # fmt: skip
    hashes = [content_hash(*part) for part in parts]
    assert len(set(hashes)) == len(parts) and all(len(h) == 64 for h in hashes)
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash(np.float32(0.5)) == content_hash(0.5)
    assert content_hash("x") == content_hash("x") != content_hash("y")
    with pytest.raises(TypeError, match="PosixPath"):
        content_hash(Path("/x"))
