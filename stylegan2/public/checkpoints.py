"""Opens public weight files without executing them, and recognises from the content which networks they hold.

NVIDIA's .pkl are read by stylegan2/public/safe_pickle.py, torch's .pt and .pth by torch.load(weights_only=True) within
the bounds of stylegan2/public/file_limits.py.
"""

import argparse
import mmap
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan2.public.admitted_classes import persistent_record
from stylegan2.public.file_limits import (
    LEGACY,
    MAX_OPCODES,
    Record,
    Refused,
    check_nesting,
    check_pickles,
    unsafe_reason,
)
from stylegan2.public.nvidia import READERS, clamp_value, from_nvidia, has_w_avg, records
from stylegan2.public.rosinality import discriminator_from_rosinality, generator_from_rosinality
from stylegan2.public.safe_pickle import read_pickle
from stylegan2.weights import WeightsError, demand_weights

MAX_PICKLE = 4_000_000  # largest pickle inside a zip file, in bytes; e4e's has 0.1 MB
IN_FILE = "in the file"
ESTIMATED = "estimated from 10,000 z, seed 0"

_WRAPPERS = ("module.", "_orig_mod.", "g_ema.", "generator.", "G_ema.")


def _plain_record(meta: Any) -> Record:
    """In the place of NVIDIA's _reconstruct_persistent_obj, which would execute the source code in `meta`."""
    return persistent_record((meta,))


_ADMITTED = [
    argparse.Namespace,
    set,
    (_plain_record, "torch_utils.persistence._reconstruct_persistent_obj"),
    (OrderedDict, "dnnlib.util.EasyDict"),  # which is a dict with attributes
]
Builders = Mapping[str, Callable[[], nn.Module]]


@dataclass(frozen=True)
class PublicCheckpoint:
    """The content of one public weight file; its StyleGAN2 networks are built on demand."""

    path: Path
    kind: str  # description of the file, for messages
    networks: Builders = field(
        default_factory=dict
    )  # "g_ema", "g", "d" -> a function that builds the network
    w_avg: str = IN_FILE  # origin of the generators' mean of W
    # Tensors of an e4e or pSp encoder (without the prefix `encoder.`), or of IR-SE50.
    encoder: dict[str, Tensor] = field(default_factory=dict)
    latent_avg: Tensor | None = None  # [L, D] or [D]
    encoder_type: str | None = None  # encoder type in the file's options

    def build(self, name: str) -> nn.Module:
        """The network, frozen and in eval mode. Raises WeightsError if the file's tensors do not form one."""
        try:
            network = self.networks[name]()
        except WeightsError as error:
            raise WeightsError(f"{self.path}: {error}") from error
        return network.eval().requires_grad_(False)


def read_public_checkpoint(path: str | Path) -> PublicCheckpoint:
    """Opens a file of NVIDIA, rosinality, e4e, pSp or InsightFace (IR-SE50). Raises WeightsError for any other."""
    path = Path(path)
    demand_weights(path)
    with open(path, "rb") as file:
        head = file.read(len(LEGACY))
    try:
        if head[:1] == b"\x80" and not head.startswith(LEGACY):
            return _nvidia_snapshot(path, read_pickle(path))
        return _recognise(path, read_checkpoint(path))
    except WeightsError as error:
        raise error if str(path) in str(error) else WeightsError(f"{path}: {error}") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a .pt file of tensors. Nothing in it is executed. Raises WeightsError.

    argparse.Namespace is admitted, because training checkpoints hold their arguments as one, and NVIDIA's persistent
    modules, which become `Record`s: PTI saves its tuned generators as whole modules.
    """
    path = Path(path)
    demand_weights(path)
    try:
        _check_container(path)
        with torch.serialization.safe_globals(_ADMITTED):
            content = torch.load(path, map_location="cpu", weights_only=True)
        check_nesting(content)
        _check_tensors(content, 2 * path.stat().st_size)
    except Exception as error:  # torch.load raises many types for a damaged or unsafe file
        reason = str(error) if isinstance(error, Refused) else unsafe_reason(error)
        raise WeightsError(
            f"{path} is not a PyTorch file of plain tensors ({reason}); nothing in it was executed. Of a whole module, save "
            "module.state_dict() with the code that made it."
        ) from error
    if isinstance(content, Record):
        return {"G_ema" if "mapping" in content.state.get("_modules", {}) else "D": content}
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a dict of tensors.")
    return content


def _check_container(path: Path) -> None:
    """Raises Refused if opening the file could take much more memory than the file has bytes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise Refused("its entries are compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise Refused("it unpacks to more than its own size")
        if any(entry.file_size > MAX_PICKLE for entry in entries if entry.filename.endswith(".pkl")):
            raise Refused(f"its pickle has more than {MAX_PICKLE:,} bytes, which no weights need")
        return
    with open(path, "rb") as file:
        if file.read(len(LEGACY)) != LEGACY:
            raise Refused("it does not begin as one, or is cut short")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            check_pickles(data, 5, MAX_OPCODES)


def _check_tensors(content: Any, budget: int) -> None:
    """Raises Refused for sparse tensors and for tensors that repeat their bytes, which could unpack to any size."""
    pending, visited = [content], set()
    while pending:
        node = pending.pop()
        if isinstance(node, Tensor):
            if node.layout != torch.strided or node.is_quantized or node.device.type != "cpu":
                raise Refused("it holds a tensor that is not plain")
            size = node.numel() * node.element_size()
            budget -= size
            if size > node.untyped_storage().nbytes() or budget < 0:
                raise Refused("it unpacks to more than its own size")
        elif isinstance(node, Mapping | list | tuple | Record) and id(node) not in visited:
            visited.add(id(node))
            node = node.state if isinstance(node, Record) else node
            pending.extend(node.values() if isinstance(node, Mapping) else node)


def _nvidia_snapshot(path: Path, content: Any) -> PublicCheckpoint:
    networks = records(content)
    generator = networks.get("g_ema") or networks.get("g")
    return PublicCheckpoint(
        path,
        f"NVIDIA snapshot ({path.suffix or 'pickle'})",
        {name: partial(READERS[name], record) for name, record in networks.items()},
        IN_FILE if generator is None or has_w_avg(generator) else ESTIMATED,
    )


def _recognise(path: Path, content: dict[str, Any]) -> PublicCheckpoint:
    """The networks in a .pt file, recognised by its keys."""
    if any(isinstance(value, Record) for value in content.values()):
        return _nvidia_snapshot(path, content)
    content = _without_wrappers(content)
    clamp = clamp_value(content.get("conv_clamp"))
    latent_avg = content.get("latent_avg")
    if not isinstance(latent_avg, Tensor) or not latent_avg.numel():
        latent_avg = None
    w_avg = ESTIMATED if latent_avg is None else f"{IN_FILE} (latent_avg)"

    def rosinality(states: Mapping[str, Mapping[str, Any]]) -> Builders:
        """ "g_ema", "g" or "d" -> a builder, for state dicts with rosinality's names."""
        generator = partial(generator_from_rosinality, latent_avg=latent_avg, conv_clamp=clamp)
        discriminator = partial(discriminator_from_rosinality, conv_clamp=clamp)
        return {
            name: partial(discriminator if name == "d" else generator, _only_tensors(state))
            for name, state in states.items()
        }

    # e4e and pSp: encoder and decoder in one state dict, with prefixes
    if isinstance(content.get("state_dict"), dict):
        state = _only_tensors(_without_wrappers(content["state_dict"]))
        encoder, decoder = _behind(state, "encoder."), _behind(state, "decoder.")
        if not encoder and not decoder:
            raise WeightsError("Its state_dict holds neither `encoder.` nor `decoder.` tensors.")
        networks = rosinality({"g_ema": decoder} if decoder else {})
        options = content.get("opts")
        options = vars(options) if isinstance(options, argparse.Namespace) else options
        encoder_type = options.get("encoder_type") if isinstance(options, dict) else None
        encoder_type = encoder_type[:60] if isinstance(encoder_type, str) else None
        return PublicCheckpoint(
            path, "e4e or pSp checkpoint", networks, w_avg, encoder, latent_avg, encoder_type
        )

    states = {
        name: _without_wrappers(content[name])
        for name in ("g_ema", "g", "d")
        if isinstance(content.get(name), dict)
    }
    if states:
        return PublicCheckpoint(path, "rosinality checkpoint", rosinality(states), w_avg)

    # plain state dicts
    state = _only_tensors(content)
    if "mapping.fc0.weight" in state:
        known = IN_FILE if "mapping.w_avg" in state else ESTIMATED
        networks = {"g_ema": partial(from_nvidia, state)}
        return PublicCheckpoint(path, "state dict with NVIDIA's names", networks, known)
    if "b4.conv.weight" in state:
        return PublicCheckpoint(path, "state dict with NVIDIA's names", {"d": partial(from_nvidia, state)})
    if "to_rgb1.bias" in state or "final_conv.0.weight" in state:
        name = "g_ema" if "to_rgb1.bias" in state else "d"
        return PublicCheckpoint(path, "state dict with rosinality's names", rosinality({name: state}), w_avg)
    if "input_layer.0.weight" in state and "output_layer.3.weight" in state:
        return PublicCheckpoint(path, "IR-SE50 (ArcFace)", encoder=dict(state))
    raise WeightsError(
        "The file holds none of the networks that can be read here: NVIDIA or rosinality StyleGAN2, e4e, pSp, IR-SE50."
    )


def _without_wrappers(content: dict[str, Any]) -> dict[str, Any]:
    """A state dict without the prefixes that DataParallel (`module.`) and torch.compile (`_orig_mod.`) put before each
    name, and without a dict of one entry around it.
    """
    for _ in range(4):
        if len(content) == 1 and isinstance(inner := next(iter(content.values())), dict):
            if next(iter(content)) in ("g_ema", "g", "d", "state_dict"):
                return content
            content = inner
        prefix = next((p for p in _WRAPPERS if content and all(str(k).startswith(p) for k in content)), None)
        if prefix is not None:
            content = {key.removeprefix(prefix): value for key, value in content.items()}
    return content


def _only_tensors(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The tensors of a dict; the dict itself, with its `_metadata`, if it holds nothing else."""
    if all(isinstance(value, Tensor) for value in content.values()):
        return content
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _behind(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
