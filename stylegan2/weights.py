"""The format of our weight files: safetensors whose metadata name the network, the config that rebuilds it, and its origin.

metadata: kind (which network), config (JSON, the keyword arguments of its constructor), notes (JSON, licence and lineage).
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class WeightsError(ValueError):
    """A weight file that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class WeightsFile:
    """The content of one weight file. `state` holds its tensors, floats as float32; the rest is its metadata."""

    kind: str
    config: dict[str, Any]
    notes: dict[str, Any]
    state: dict[str, Tensor]


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling (same suffix) that becomes `path` on success and is deleted on failure.

    If it cannot be written, because the disk is full for instance, raises the OSError that names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:80]}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777  # of the umask, because safetensors makes files private
        temporary.unlink()
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        failed = error if isinstance(error, OSError) else _disk_error(error, temporary)
        if failed is not None and failed.errno and failed.filename in (None, str(temporary)):
            raise OSError(failed.errno, os.strerror(failed.errno), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _disk_error(error: Exception, file: Path) -> OSError | None:
    """The disk's error behind one that a library in C++ or Rust raised while it wrote `file`, or None.

    safetensors states its number; torch does not, so more is written into the file, which is deleted afterwards.
    """
    if stated := re.search(r"\(os error (\d+)\)", str(error)):
        return OSError(int(stated[1]), "")
    try:
        with open(file, "ab", buffering=0) as handle:
            handle.write(bytes(2**16))
    except OSError as found:
        return found
    return None


def demand_weights(path: Path) -> None:
    """Raises WeightsError if there is no file, or a web page or a Git LFS pointer in its place."""
    if not path.is_file():
        raise WeightsError(f"There is no weight file at {path}: check the path.")
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the weights themselves: run `git lfs pull` in its repository, or download "
            "the file from the repository's page."
        )
    if head.lstrip()[:1] == b"<":
        raise WeightsError(
            f"{path} is a web page, not weights: download it again, if necessary in a browser."
        )


def file_hash(path: str | Path) -> str:
    """sha256 of the file's bytes, as hex; a file that has not changed is read once per process."""
    status = os.stat(path)
    return _file_hash(os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ino)


@functools.cache
def _file_hash(path: str, size: int, modified: int, inode: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_weights(
    module: nn.Module | Mapping[str, Tensor],
    path: str | Path,
    kind: str,
    config: Mapping[str, Any],
    notes: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Writes a module's state dict (or a dict of tensors) atomically. Raises WeightsError for values that are not finite.

    config: the keyword arguments that rebuild the network. notes: its licence and lineage.
    half: stores floats as float16; values beyond the range of float16 are refused.
    """
    state = module.state_dict() if isinstance(module, nn.Module) else module
    tensors = {}
    for key, value in state.items():
        stored = value.detach().cpu()
        if half and stored.is_floating_point():
            stored = stored.to(torch.float16)
        if stored.is_floating_point() and not bool(torch.isfinite(stored).all()):
            raise WeightsError(
                f"{path}: tensor {key} is not finite{' as float16' if half else ''}; not saved."
            )
        tensors[key] = stored.contiguous().clone()  # safetensors refuses tensors that share memory
    metadata = {"kind": kind, "config": json.dumps(dict(config)), "notes": json.dumps(dict(notes or {}))}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        _sort_metadata(temporary)


def _sort_metadata(file: Path) -> None:
    """Puts the entries of a safetensors file's metadata in order: safetensors writes them in a random one, and equal
    networks should be equal files, because other files are named by their hash.
    """
    with open(file, "r+b") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:
            handle.seek(8)
            handle.write(text.ljust(length))


def read_weights(path: str | Path) -> WeightsFile:
    """Reads one weight file; floats become float32. Raises WeightsError for a missing or damaged file, NaN or infinity."""
    path = Path(path)
    demand_weights(path)
    if any("\ud800" <= character <= "\udfff" for character in str(path)):
        raise WeightsError(f"{path} has a name that is not UTF-8, which safetensors cannot open: rename it.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a safetensors file or is cut short ({error}): "
            "convert it with scripts/convert_weights.py, or copy it again."
        ) from error
    try:
        kind, config = metadata["kind"], json.loads(metadata["config"])
        notes = json.loads(metadata.get("notes", "{}"))
        if not isinstance(config, dict) or not isinstance(notes, dict):
            raise TypeError("config and notes must be JSON objects")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} does not say which network it belongs to (no usable `kind` and `config` in its metadata): "
            "convert it with scripts/convert_weights.py."
        ) from error
    for key, value in state.items():
        if value.is_floating_point():
            state[key] = value.float()
            if not bool(torch.isfinite(value).all()):
                raise WeightsError(
                    f"{path} holds NaN or infinity in {key}: the file is damaged, use another copy."
                )
    return WeightsFile(kind, config, notes, state)


def fill(build: Callable[[], Network], weights: WeightsFile, path: str | Path) -> Network:
    """The network that `build` makes of the file's config, with the file's tensors. Raises WeightsError."""
    network = fitting(build, weights, path)
    network.to_empty(device="cpu").load_state_dict(weights.state)
    return network


def fitting(
    build: Callable[[], Network],
    weights: WeightsFile,
    path: str | Path,
    again: str = "convert or export it again",
) -> Network:
    """The network that `build` makes of the file's config, on the meta device (no memory is allocated).

    Raises WeightsError, which recommends `again`, if it cannot be built or the file's tensors do not fit it.
    """
    try:
        return _build_on_meta(build, weights.state)
    except ValueError as error:
        raise WeightsError(
            f"{path} does not fit its own config, a {weights.kind} network ({error}): "
            f"the file was made by another version or is damaged, {again}."
        ) from error


def assemble(build: Callable[[], Network], state: Mapping[str, Tensor], what: str) -> Network:
    """The network that `build` makes, holding float32 copies of these tensors. Raises WeightsError if they do not fit.

    what: the network's name in the message.
    """
    try:
        network = _build_on_meta(build, state)
    except ValueError as error:
        raise WeightsError(f"These tensors do not form a {what}: {error}.") from error
    copies = {}
    for key, value in state.items():
        copies[key] = value.detach().float().clone(memory_format=torch.contiguous_format)
        if not bool(torch.isfinite(copies[key]).all()):
            raise WeightsError(f"These tensors do not form a {what}: {key} holds NaN or infinity.")
    network.load_state_dict(copies, assign=True)
    return network


def first_difference(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """ "KEY is (2, 2), expected (512, 512)" for the first key whose shapes differ or that only one of the two has."""
    for key in sorted(wanted.keys() | state.keys()):
        actual = tuple(state[key].shape) if key in state else "nothing"
        expected = tuple(wanted[key].shape) if key in wanted else "nothing"
        if actual != expected:
            return f"{key} is {actual}, expected {expected}"
    return None


def _build_on_meta(build: Callable[[], Network], state: Mapping[str, Tensor]) -> Network:
    """Builds on the meta device, so that a file that claims huge sizes cannot make the network allocate memory.

    Raises ValueError with the reason if that fails or the network's tensors have other names or shapes than `state`.
    """
    try:
        with torch.device("meta"):
            network = build()
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = "a shape has too few axes" if isinstance(error, IndexError) else " ".join(str(error).split())
        raise ValueError(reason[:160]) from error
    if (difference := first_difference(network.state_dict(), state)) is not None:
        raise ValueError(difference)
    return network
