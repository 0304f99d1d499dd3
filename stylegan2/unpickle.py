"""Reads the pickles of NVIDIA's StyleGAN2 repositories as plain data: nothing in the file is ever executed.

An ordinary unpickler imports and calls what the file names, and these files even carry source code that is meant to
be run. This one is a small stack machine of its own. It knows the dozen names that such files need (`ADMITTED`), builds
plain data for each, and refuses every other name and every instruction that could reach one. What the file can make
it allocate is bounded: by the file's own size for tensors, by MAX_OPCODES for everything else.
"""

import io
import math
import mmap
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan2.weights import WeightsError

MAX_OPCODES = 300_000  # a snapshot of G, D and G_ema at 1024 px has about 50,000
MAX_HEIGHT = 100  # levels of nesting; such a snapshot has about 25
MAX_STORAGE_OPCODES = 200  # of the pickles around one tensor's bytes; torch writes about 60


class Refused(ValueError):
    """Why a pickle is not read, as the second half of a sentence about the file."""


@dataclass
class Record:
    """One object of torch_utils.persistence: the class it claims to be and its attributes; its source is dropped."""

    class_name: str
    state: dict[str, Any]


@dataclass(frozen=True)
class _Name:
    """A global that the file may name: what stands in its place on the stack, and what calling it builds."""

    name: str
    build: "Callable[[_Machine, tuple[Any, ...]], Any]"


def read_pickle(path: str | Path) -> Any:
    """The file's content as dicts, lists, tuples, sets, scalars, tensors and `Record`s. Raises WeightsError."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file at {path}: check the path.")
    size = path.stat().st_size
    try:
        if size == 0:
            raise Refused("is empty: copy or download it again")
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Machine(size).run(data)
    except Refused as error:
        raise WeightsError(f"{path} {error}; nothing in it was executed.") from error
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise WeightsError(
            f"{path} is cut short or damaged ({reason}): copy or download it again; nothing in it was executed."
        ) from error


@dataclass
class _Machine:
    """The stack, the memo and what has been allocated so far."""

    budget: int  # bytes of tensors that may still be built
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, data: Any) -> Any:
        """data: a file-like object whose read(n) never allocates more than there is."""
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPCODES:
                raise Refused(f"has more than {MAX_OPCODES:,} instructions, which no StyleGAN2 needs")
            if opcode.name == "STOP":
                if len(self.stack) != 1 or self.marks:
                    raise Refused("does not end with one object: it is damaged")
                check_shape(self.stack[0])
                return self.stack[0]
            self.step(opcode.name, argument, position)
        raise Refused("has no end: it is cut short")

    def step(self, name: str, argument: Any, position: int | None) -> None:
        """One instruction; those that are not listed are refused."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass  # the length of a frame is a hint for buffered reading, not followed here
            case "MARK":
                self.marks.append(len(stack))
            case "POP":
                self.pop()
            case "POP_MARK":
                self.pop_to_mark()
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                if not -(2**63) <= argument < 2**64:
                    raise Refused("holds a number of more than 64 bits")
                stack.append(argument)
            case "FLOAT" | "BINFLOAT" | "UNICODE" | "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "STRING" | "SHORT_BINSTRING" | "BINSTRING" | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET" | "EMPTY_TUPLE":
                stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}.get(name, tuple)())
            case "LIST":
                stack.append(self.pop_to_mark())
            case "TUPLE":
                stack.append(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(items)))
            case "DICT":
                stack.append(_update({}, self.pop_to_mark()))
            case "APPEND":
                item = self.pop()
                self.top(list).append(item)
            case "APPENDS":
                items = self.pop_to_mark()
                self.top(list).extend(items)
            case "SETITEM":
                value, key = self.pop(), self.pop()
                _update(self.top(dict), [key, value])
            case "SETITEMS":
                items = self.pop_to_mark()
                _update(self.top(dict), items)
            case "ADDITEMS":
                items = self.pop_to_mark()
                self.top(set).update(_key(item) for item in items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(_admitted(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                if not isinstance(module, str) or not isinstance(attribute, str):
                    raise Refused("names a global by something that is no name")
                stack.append(_admitted(f"{module}.{attribute}"))
            case "REDUCE" | "NEWOBJ":
                arguments, called = self.pop(), self.pop()
                if not isinstance(called, _Name) or not isinstance(arguments, tuple):
                    raise Refused(f"calls what is not a known name ({name} at byte {position})")
                stack.append(called.build(self, arguments))
            case "BUILD":  # numpy sends a dtype its byte order this way; nothing else may be changed
                state = self.pop()
                if not isinstance(self.top(), np.dtype) or not _is_native(state):
                    raise Refused(f"changes an object after building it (BUILD at byte {position})")
            case "INST":
                raise Refused(f"asks for {_shown(argument.replace(' ', '.', 1))}, which is not admitted")
            case _:
                raise Refused(f"uses the pickle instruction {name}, which no StyleGAN2 file needs")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Refused("takes more from its stack than there is: it is damaged")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise Refused("closes a group that it never opened: it is damaged")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type | None = None) -> Any:
        if not self.stack or (kind is not None and not isinstance(self.stack[-1], kind)):
            raise Refused("puts items into something that holds none: it is damaged")
        return self.stack[-1]


# What the admitted names build. Each takes the arguments that the file gives and trusts none of them.


def _record(machine: _Machine, arguments: tuple[Any, ...]) -> Record:
    """Source code (`module_src`) comes with every object; it is left out, never compiled."""
    (meta,) = arguments
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise Refused("holds a persistent object without a state")
    return Record(str(meta.get("class_name"))[:100], meta["state"])


def _empty(kind: type) -> Callable[[_Machine, tuple[Any, ...]], Any]:
    def build(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
        if arguments:
            raise Refused(f"fills a {kind.__name__} in an unknown way")
        return kind()

    return build


def _set(machine: _Machine, arguments: tuple[Any, ...]) -> set[Any]:
    """Protocol 3 and older write a set as set([...])."""
    (items,) = arguments or ([],)
    if not isinstance(items, list):
        raise Refused("fills a set in an unknown way")
    return {_key(item) for item in items}


def _storage(machine: _Machine, arguments: tuple[Any, ...]) -> torch.UntypedStorage | torch.TypedStorage:
    """The bytes of one tensor, in torch's old file format, read by torch.load(weights_only=True)."""
    (content,) = arguments
    if not isinstance(content, bytes) or not content.startswith(LEGACY):
        raise Refused("holds tensor bytes in an unknown format")
    machine.budget -= len(content)
    if machine.budget < 0:
        raise Refused("unpacks to more than its own size")
    stream = io.BytesIO(content)
    check_pickles(stream, 5, MAX_STORAGE_OPCODES)
    stream.seek(0)
    try:
        storage = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen types for damaged or unsafe content
        raise Refused(f"holds tensor bytes that are damaged or unsafe ({unsafe_reason(error)})") from error
    if not isinstance(storage, torch.TypedStorage | torch.UntypedStorage):
        raise Refused("holds something else in the place of a tensor's bytes")
    return storage


def _tensor(machine: _Machine, arguments: tuple[Any, ...]) -> Tensor:
    """(storage, offset, size, stride, …) -> a view of the storage that repeats no element."""
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, torch.TypedStorage):
        raise Refused("holds a tensor without bytes")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**40 for n in numbers):
        raise Refused("holds a tensor of an impossible shape")
    elements = math.prod(size)
    extent = offset + (
        sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if elements else 0
    )
    if max(elements, extent) > storage._size():
        raise Refused("holds a tensor larger than its bytes")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def _parameter(machine: _Machine, arguments: tuple[Any, ...]) -> Tensor:
    if not isinstance(arguments[0], Tensor):
        raise Refused("holds a parameter that is no tensor")
    return arguments[0]


def _dtype(machine: _Machine, arguments: tuple[Any, ...]) -> np.dtype:
    """Numbers and truth values only: a dtype of objects would hold pickles."""
    if arguments[0] not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise Refused("holds a numpy type that is no number")
    return np.dtype(arguments[0])


def _scalar(machine: _Machine, arguments: tuple[Any, ...]) -> Any:
    dtype, content = arguments
    if isinstance(content, str):  # how Python 2 wrote bytes
        content = content.encode("latin1")
    if not isinstance(dtype, np.dtype) or not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise Refused("holds a numpy number of the wrong length")
    return np.frombuffer(content, dtype)[0].item()


ADMITTED = {
    "torch_utils.persistence._reconstruct_persistent_obj": _record,
    "dnnlib.util.EasyDict": _empty(dict),
    "collections.OrderedDict": _empty(dict),
    "builtins.set": _set,
    "__builtin__.set": _set,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # torch.save before zip files


def _admitted(name: str) -> _Name:
    if name in ADMITTED:
        return _Name(name, ADMITTED[name])
    if name.startswith("dnnlib.tflib."):
        raise Refused(
            "is a TensorFlow pickle (dnnlib.tflib): convert it once with legacy.py of NVIDIA's stylegan3 repository, "
            "or take the PyTorch .pkl of the same network"
        )
    raise Refused(f"asks for {_shown(name)}, which is not admitted")


# Bounds, shared with the readers of .pt files.


def check_pickles(stream: Any, pickles: int, limit: int) -> None:
    """Refused unless the next pickles of the stream have at most `limit` instructions together; builds nothing."""

    def opcodes() -> Iterator[Any]:
        for _ in range(pickles):
            yield from pickletools.genops(stream)

    if sum(1 for _ in islice(opcodes(), limit + 1)) > limit:
        raise Refused(f"has more than {limit:,} pickle instructions, which no weights need")


def check_shape(root: Any) -> None:
    """Refused if the objects contain themselves or nest deeper than MAX_HEIGHT; no recursion, each is seen once."""
    heights: dict[int, int] = {}
    pending: list[tuple[Any, bool]] = [(root, False)]
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


def unsafe_reason(error: Exception) -> str:
    """What torch.load(weights_only=True) refused, without its advice to load the file unsafely."""
    text = str(error)
    if "GLOBAL " in text:
        return f"it asks for {_shown(text.split('GLOBAL ', 1)[1].split(' ', 1)[0])}, which is not admitted"
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if lines and lines[0].startswith("Weights only load failed") and len(lines) > 1:
        return lines[-2][:160]
    return lines[0][:160] if lines else type(error).__name__


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    if isinstance(node, Record):
        return [node.state]
    return list(node) if isinstance(node, list | tuple) else []


def _update(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise Refused("holds a key without a value: it is damaged")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_key(key)] = value
    return target


def _key(key: Any) -> Any:
    """Scalars only: the hash of a nested tuple can take for ever."""
    if not isinstance(key, str | int | None):
        raise Refused("uses a container as a key")
    return key


def _is_native(state: Any) -> bool:
    """numpy's dtype state (version, byte order, None, None, None, -1, -1, …), little-endian or of single bytes."""
    return (
        isinstance(state, tuple)
        and len(state) >= 7
        and state[1] in ("<", "|", "=")
        and state[2:5] == (None,) * 3
    )


def _shown(name: str) -> str:
    return repr(name[:80])[1:-1]
