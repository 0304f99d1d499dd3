"""The hash that is part of cache folders' names: equal contents give equal hashes on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np


def keyed_fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass that influence the result; a field with metadata {"keyed": False} does not."""
    fields = dataclasses.fields(record)
    return {field.name: getattr(record, field.name) for field in fields if field.metadata.get("keyed", True)}


def content_hash(*parts: Any) -> str:
    """sha256 (hex) of bytes, text, numbers, None, arrays, dataclasses, and lists and dicts of these.

    Types and lengths are hashed too, so that ("ab", "c") and ("a", "bc") differ. For a dataclass, its class name and
    its `keyed_fields` are hashed. Raises TypeError for other types, paths among them: pass the file's content instead.
    """
    digest = hashlib.sha256()

    def add(tag: str, data: bytes) -> None:
        digest.update(f"{tag}:{len(data)}:".encode())
        digest.update(data)

    def visit(part: Any) -> None:
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            add("record", type(part).__name__.encode())
            part = keyed_fields(part)
        if isinstance(part, (bytes, bytearray, memoryview)):
            add("bytes", bytes(part))
        elif isinstance(part, np.ndarray):
            add(f"array {part.dtype.str} {part.shape}", np.ascontiguousarray(part).tobytes())
        elif part is None or isinstance(part, (str, bool, int, float, np.generic)):
            plain = part.item() if isinstance(part, np.generic) else part
            add(type(plain).__name__, repr(plain).encode())
        elif isinstance(part, dict):
            add("dict", str(len(part)).encode())
            for key in sorted(part, key=repr):
                visit(key)
                visit(part[key])
        elif isinstance(part, (list, tuple)):
            add("list", str(len(part)).encode())
            for item in part:
                visit(item)
        else:
            raise TypeError(f"content_hash does not take {type(part).__name__}")

    visit(parts)
    return digest.hexdigest()
