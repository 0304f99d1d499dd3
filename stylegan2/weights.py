"""Weight files that rebuild their own network: safetensors whose metadata hold kind, config and notes."""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

EMBEDDED = Path(__file__).parent / "assets" / "generator_256.safetensors"
Network = TypeVar("Network", bound=nn.Module)


class WeightsError(ValueError):
    """A weight file that cannot be used; the message names the file and what to do."""


@dataclass(frozen=True)
class WeightsFile:
    """The content of one weight file: float32 tensors, what network they belong to, and their lineage."""

    kind: str
    config: dict[str, Any]
    notes: dict[str, Any]
    state: dict[str, Tensor]


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling (same suffix) that becomes `path` on success and is deleted on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:80]}-{uuid.uuid4().hex[:8]}{path.suffix}")
    temporary.touch()
    mode = (
        temporary.stat().st_mode & 0o777
    )  # what the umask gives any new file; safetensors would make it private
    temporary.unlink()
    try:
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_hash(path: str | Path) -> str:
    """sha256 of the file's bytes, as hex."""
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
    """Writes a module's state dict (or a dict of tensors) atomically.

    `config` holds the keyword arguments that rebuild the network, `notes` its licence and lineage.
    half stores floats as float16; a value beyond its range would become infinite, so it is refused.
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
        tensors[key] = stored.contiguous().clone()  # clone: safetensors refuses tensors that share memory
    metadata = {"kind": kind, "config": json.dumps(dict(config)), "notes": json.dumps(dict(notes or {}))}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_weights(path: str | Path) -> WeightsFile:
    """Reads and checks one weight file; floats become float32. Raises WeightsError."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"There is no weight file at {path}: check the path; scripts/doctor.py lists what is there."
        )
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
    """The network that `build` makes of the file's config, holding its tensors. Raises WeightsError."""
    network = fitting(build, weights, path)
    network.to_empty(device="cpu").load_state_dict(weights.state)
    return network


def fitting(
    build: Callable[[], Network],
    weights: WeightsFile,
    path: str | Path,
    again: str = "convert or export it again",
) -> Network:
    """The network that `build` makes of the file's config, still without memory: a config that lies about the tensors
    cannot make it allocate any. Raises WeightsError, which says `again`, where the file's tensors do not fit it."""
    damaged = f"the file was made by another version or is damaged, {again}."
    try:
        with torch.device("meta"):
            network = build()
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"{path} holds a config that does not build a {weights.kind} network ({reason}); {damaged}"
        ) from error
    difference = first_difference(network.state_dict(), weights.state)
    if difference is not None:
        raise WeightsError(
            f"{path} does not fit its own config, a {weights.kind} network: {difference}; {damaged}"
        )
    return network


def assemble(build: Callable[[], Network], state: Mapping[str, Tensor], what: str) -> Network:
    """The network that `build` makes, holding copies of these tensors as float32; WeightsError if they do not fit.

    It is first built without memory, so that shapes that lie about the network cannot make it allocate any.
    """
    try:
        with torch.device("meta"):
            network = build()
    except (ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        reason = "a tensor has too few axes" if isinstance(error, LookupError) else str(error)[:160]
        raise WeightsError(f"These tensors do not form a {what}: {reason}.") from error
    difference = first_difference(network.state_dict(), state)
    if difference is not None:
        raise WeightsError(f"These tensors do not form a {what}: {difference}.")
    copies = {
        key: value.detach().float().clone(memory_format=torch.contiguous_format)
        for key, value in state.items()
    }
    for key, value in copies.items():
        if not bool(torch.isfinite(value).all()):
            raise WeightsError(f"These tensors do not form a {what}: {key} holds NaN or infinity.")
    network.load_state_dict(copies, assign=True)
    return network


def first_difference(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """ "KEY is (2, 2), expected (512, 512)" for the first key whose shape is another or that only one side has."""
    for key in sorted(wanted.keys() | state.keys()):
        got = tuple(state[key].shape) if key in state else "nothing"
        expected = tuple(wanted[key].shape) if key in wanted else "nothing"
        if got != expected:
            return f"{key} is {got}, expected {expected}"
    return None


def load_generator(path: str | Path = "embedded", device: torch.device | str = "cpu") -> Any:
    """The generator in a weight file, in eval mode with frozen parameters; "embedded" is the default one.

    Gradients still flow to w; whoever tunes the weights calls requires_grad_() on a copy.
    """
    path = EMBEDDED if str(path) == "embedded" else Path(path)
    weights = read_weights(path)
    # imported here because the networks' modules import this one
    from stylegan2.networks.generator import StyleGAN2
    from stylegan2.networks.mobile_stylegan import MobileStyleGAN

    kinds: dict[str, Callable[..., nn.Module]] = {"stylegan2": StyleGAN2, "mobile": MobileStyleGAN}
    if weights.kind not in kinds:
        raise WeightsError(
            f"{path} holds a {weights.kind!r} network, not a generator ('stylegan2' or 'mobile')."
        )
    network = fill(lambda: kinds[weights.kind](**weights.config), weights, path)
    return network.to(device).eval().requires_grad_(False)
