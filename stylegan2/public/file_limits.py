"""Bounds on what a weight file of unknown origin may contain, for .pkl and .pt alike, and the error that refuses one."""

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

# Largest number of pickle instructions; a snapshot of G, D and G_ema at 1024 px has about 50,000
MAX_OPCODES = 300_000
MAX_HEIGHT = 100  # largest depth of nesting; such a snapshot has about 25 levels
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # first bytes of the format that torch used before zip files


class Refused(ValueError):
    """The reason why a pickle is not read, as the second half of a sentence about the file."""


@dataclass
class Record:
    """One object of NVIDIA's torch_utils.persistence: the name of its class and its attributes, without its source code."""

    class_name: str
    state: dict[str, Any]


def check_pickles(stream: Any, pickles: int, limit: int) -> None:
    """Raises Refused unless the next pickles of the stream have at most `limit` instructions together. Builds nothing."""

    def opcodes() -> Iterator[Any]:
        for _ in range(pickles):
            yield from pickletools.genops(stream)

    if sum(1 for _ in islice(opcodes(), limit + 1)) > limit:
        raise Refused(f"has more than {limit:,} pickle instructions, which no weights need")


def check_nesting(root: Any) -> None:
    """Raises Refused if objects contain themselves or nest deeper than MAX_HEIGHT.

    It works without recursion, so that a deep file cannot exhaust the stack, and visits every object once.
    """
    heights: dict[int, int] = {}
    pending: list[tuple[Any, bool]] = [(root, False)]  # (object, whether its children were visited)
    opened: set[int] = set()
    while pending:
        node, closing = pending.pop()
        if closing:
            heights[id(node)] = 1 + max((heights.get(id(child), 0) for child in _children(node)), default=0)
            opened.discard(id(node))
            if heights[id(node)] > MAX_HEIGHT:
                raise Refused(f"nests more than {MAX_HEIGHT} levels deep")
        elif id(node) in opened:
            raise Refused("holds an object that contains itself")
        elif id(node) not in heights and isinstance(node, dict | list | tuple | Record):
            opened.add(id(node))
            pending.append((node, True))
            pending.extend((child, False) for child in _children(node))


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    if isinstance(node, Record):
        return [node.state]
    return list(node) if isinstance(node, list | tuple) else []


def unsafe_reason(error: Exception) -> str:
    """The reason in torch.load(weights_only=True)'s message, without its advice to load the file unsafely."""
    text = str(error)
    if "GLOBAL " in text:
        return f"it asks for {shown(text.split('GLOBAL ', 1)[1].split(' ', 1)[0])}, which is not admitted"
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if lines and lines[0].startswith("Weights only load failed") and len(lines) > 1:
        return lines[-2][:160]
    return lines[0][:160] if lines else type(error).__name__


def shown(name: str) -> str:
    """A name from a file, shortened and with printable characters only."""
    return repr(name[:80])[1:-1]
