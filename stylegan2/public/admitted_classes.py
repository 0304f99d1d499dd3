"""The dozen names that NVIDIA's pickles need, and the plain data that is built in the place of each.

Each builder takes the arguments that the file gives and trusts none of them.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan2.public.file_limits import LEGACY, Record, Refused, check_pickles, shown, unsafe_reason

MAX_STORAGE_OPCODES = 200  # of the pickles around one tensor's bytes; torch writes about 60


@dataclass
class Budget:
    """Bytes of tensors that a file may still unpack to."""

    left: int

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Refused("unpacks to more than its own size")


Build = Callable[[Budget, tuple[Any, ...]], Any]


@dataclass(frozen=True)
class Name:
    """A global that the file may name: what stands in its place on the stack, and what calling it builds."""

    name: str
    build: Build


def _record(budget: Budget, arguments: tuple[Any, ...]) -> Record:
    """Source code (`module_src`) comes with every object; it is left out, never compiled."""
    (meta,) = arguments
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise Refused("holds a persistent object without a state")
    return Record(str(meta.get("class_name"))[:100], meta["state"])


def _empty(kind: type) -> Build:
    def build(budget: Budget, arguments: tuple[Any, ...]) -> Any:
        if arguments:
            raise Refused(f"fills a {kind.__name__} in an unknown way")
        return kind()

    return build


def _set(budget: Budget, arguments: tuple[Any, ...]) -> set[Any]:
    """Protocol 3 and older write a set as set([...])."""
    (items,) = arguments or ([],)
    if not isinstance(items, list):
        raise Refused("fills a set in an unknown way")
    return {scalar_key(item) for item in items}


def _storage(budget: Budget, arguments: tuple[Any, ...]) -> torch.UntypedStorage | torch.TypedStorage:
    """The bytes of one tensor, in torch's old file format, read by torch.load(weights_only=True)."""
    (content,) = arguments
    if not isinstance(content, bytes) or not content.startswith(LEGACY):
        raise Refused("holds tensor bytes in an unknown format")
    budget.spend(len(content))
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


def _tensor(budget: Budget, arguments: tuple[Any, ...]) -> Tensor:
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


def _parameter(budget: Budget, arguments: tuple[Any, ...]) -> Tensor:
    if not isinstance(arguments[0], Tensor):
        raise Refused("holds a parameter that is no tensor")
    return arguments[0]


def _dtype(budget: Budget, arguments: tuple[Any, ...]) -> np.dtype:
    """Numbers and truth values only: a dtype of objects would hold pickles."""
    if arguments[0] not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise Refused("holds a numpy type that is no number")
    return np.dtype(arguments[0])


def _scalar(budget: Budget, arguments: tuple[Any, ...]) -> Any:
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


def admitted(name: str) -> Name:
    """Refused for any name but the dozen."""
    if name in ADMITTED:
        return Name(name, ADMITTED[name])
    if name.startswith("dnnlib.tflib."):
        raise Refused(
            "is a TensorFlow pickle (dnnlib.tflib): convert it once with legacy.py of NVIDIA's stylegan3 repository, "
            "or take the PyTorch .pkl of the same network"
        )
    raise Refused(f"asks for {shown(name)}, which is not admitted")


def scalar_key(key: Any) -> Any:
    """Scalars only: the hash of a nested tuple can take for ever."""
    if not isinstance(key, str | int | None):
        raise Refused("uses a container as a key")
    return key
