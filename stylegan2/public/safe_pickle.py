"""Reads the pickles of NVIDIA's StyleGAN2 repositories as plain data, without executing anything in the file.

An ordinary unpickler imports and calls what the file names, and these files also carry source code that NVIDIA's loader
executes. This reader interprets the pickle instructions itself. It builds plain data for the names that such files need
(stylegan2/public/admitted_classes.py), and refuses every other name and every instruction that could call other code.
Its memory is limited by the file's size for tensors and by MAX_OPCODES for everything else.
"""

import mmap
import pickletools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stylegan2.public.admitted_classes import AdmittedName, admitted, scalar_key
from stylegan2.public.file_limits import MAX_OPCODES, Refused, check_nesting, shown
from stylegan2.weights import WeightsError


def read_pickle(path: str | Path) -> Any:
    """The file's content as dicts, lists, tuples, sets, scalars, tensors and `Record`s. Raises WeightsError."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Machine(len(data)).run(data)
    except Refused as error:
        raise WeightsError(f"{path} {error}; nothing in it was executed.") from error
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise WeightsError(
            f"{path} is cut short or damaged ({reason}): copy or download it again; nothing in it was executed."
        ) from error


@dataclass
class _Machine:
    """The interpreter's state. bytes_left: number of tensor bytes that may still be passed to builders."""

    bytes_left: int
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, data: Any) -> Any:
        """The object that the pickle describes. data: a memory map, whose read(n) allocates no more than the file holds."""
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPCODES:
                raise Refused(f"has more than {MAX_OPCODES:,} instructions, which no StyleGAN2 needs")
            if opcode.name == "STOP":
                if len(self.stack) != 1 or self.marks:
                    raise Refused("does not end with one object: it is damaged")
                check_nesting(self.stack[0])
                return self.stack[0]
            self.step(opcode.name, argument, position)
        raise Refused("has no end: it is cut short")

    def step(self, name: str, argument: Any, position: int | None) -> None:
        """Executes one instruction; instructions that are not listed are refused."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass  # a frame's length is a hint for buffered reading, which is not needed here
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
                self.top(set).update(scalar_key(item) for item in items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(admitted(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                if not isinstance(module, str) or not isinstance(attribute, str):
                    raise Refused("names a global by something that is no name")
                stack.append(admitted(f"{module}.{attribute}"))
            case "REDUCE" | "NEWOBJ":
                arguments, called = self.pop(), self.pop()
                if not isinstance(called, AdmittedName) or not isinstance(arguments, tuple):
                    raise Refused(f"calls what is not a known name ({name} at byte {position})")
                self.bytes_left -= sum(len(part) for part in arguments if isinstance(part, bytes))
                if self.bytes_left < 0:
                    raise Refused("unpacks to more than its own size")
                stack.append(called.build(arguments))
            case "BUILD":  # sets the byte order of a numpy dtype; nothing else may be changed
                state = self.pop()
                if not isinstance(self.top(), np.dtype) or not _is_native_order(state):
                    raise Refused(f"changes an object after building it (BUILD at byte {position})")
            case "INST":
                raise Refused(f"asks for {shown(argument.replace(' ', '.', 1))}, which is not admitted")
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


def _update(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise Refused("holds a key without a value: it is damaged")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[scalar_key(key)] = value
    return target


def _is_native_order(state: Any) -> bool:
    """Whether numpy's dtype state (version, byte order, None, None, None, -1, -1, …) is little-endian or of single bytes."""
    return (
        isinstance(state, tuple)
        and len(state) >= 7
        and state[1] in ("<", "|", "=")
        and state[2:5] == (None,) * 3
    )
