"""The eleven class and function names that NVIDIA's pickles may use, each with a builder, a function that makes plain
data instead of the named object. A builder gets the arguments stored in the file and checks all of them.
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

MAX_STORAGE_OPCODES = 200  # instructions of the pickles around one tensor's bytes; torch writes about 60
Builder = Callable[[tuple[Any, ...]], Any]


@dataclass(frozen=True)
class AdmittedName:
    """The entry on the reader's stack for an admitted name; when the file calls the name, the reader calls
    `build(arguments)`.
    """

    build: Builder


def admitted(name: str) -> AdmittedName:
    """The builder of an admitted name. Raises Refused for every other name."""
    if name in BUILDERS:
        return AdmittedName(BUILDERS[name])
    if name.startswith("dnnlib.tflib."):
        raise Refused(
            "is a TensorFlow pickle (dnnlib.tflib): convert it once with legacy.py of NVIDIA's stylegan3 repository, "
            "or take the PyTorch .pkl of the same network"
        )
    raise Refused(f"asks for {shown(name)}, which is not admitted")


def scalar_key(key: Any) -> Any:
    """The key if it is a scalar; Refused otherwise, because hashing a nested tuple can take unbounded time."""
    if not isinstance(key, str | int | None):
        raise Refused("uses a container as a key")
    return key


def persistent_record(arguments: tuple[Any, ...]) -> Record:
    """A persistent object. Its source code (`module_src`) is dropped and never compiled."""
    (meta,) = arguments
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise Refused("holds a persistent object without a state")
    name = meta.get("class_name")
    return Record(name[:100] if isinstance(name, str) else "object", meta["state"])


def _empty_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise Refused("fills a dict in an unknown way")
    return {}


def _set(arguments: tuple[Any, ...]) -> set[Any]:
    """Protocol 3 and older write a set as set([...])."""
    (items,) = arguments or ([],)
    if not isinstance(items, list):
        raise Refused("fills a set in an unknown way")
    return {scalar_key(item) for item in items}


def _storage(arguments: tuple[Any, ...]) -> torch.UntypedStorage | torch.TypedStorage:
    """The bytes of one tensor, in torch's format before zip files, read by torch.load(weights_only=True)."""
    (content,) = arguments
    if not isinstance(content, bytes) or not content.startswith(LEGACY):
        raise Refused("holds tensor bytes in an unknown format")
    stream = io.BytesIO(content)
    check_pickles(stream, 5, MAX_STORAGE_OPCODES)
    stream.seek(0)
    try:
        storage = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged or unsafe content
        raise Refused(f"holds tensor bytes that are damaged or unsafe ({unsafe_reason(error)})") from error
    if not isinstance(storage, torch.TypedStorage | torch.UntypedStorage):
        raise Refused("holds something else in the place of a tensor's bytes")
    return storage


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """(storage, offset, size, stride, …) -> a view of the storage that repeats no element."""
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, torch.TypedStorage):
        raise Refused("holds a tensor without bytes")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**40 for n in numbers):
        raise Refused("holds a tensor of an impossible shape")
    elements = math.prod(size)
    last = sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if elements else 0
    if max(elements, offset + last) > storage._size():
        raise Refused("holds a tensor larger than its bytes")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    if not isinstance(arguments[0], Tensor):
        raise Refused("holds a parameter that is no tensor")
    return arguments[0]


def _dtype(arguments: tuple[Any, ...]) -> np.dtype:
    """Types of numbers and truth values only: an array of objects would hold pickles."""
    if arguments[0] not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise Refused("holds a numpy type that is no number")
    return np.dtype(arguments[0])


def _scalar(arguments: tuple[Any, ...]) -> Any:
    dtype, content = arguments
    if isinstance(content, str):  # bytes as Python 2 writes them
        content = content.encode("latin1")
    if not isinstance(dtype, np.dtype) or not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise Refused("holds a numpy number of the wrong length")
    return np.frombuffer(content, dtype)[0].item()


BUILDERS: dict[str, Builder] = {
    "torch_utils.persistence._reconstruct_persistent_obj": persistent_record,
    "dnnlib.util.EasyDict": _empty_dict,
    "collections.OrderedDict": _empty_dict,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
