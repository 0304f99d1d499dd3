"""Opens anybody's weight file without executing it, and says what it holds: the kind is read from the content.

NVIDIA's .pkl go to stylegan2/public/safe_pickle.py; torch's .pt and .pth to torch.load(weights_only=True), inside bounds.
"""

import argparse
import mmap
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan2.public import nvidia
from stylegan2.public.file_limits import (
    LEGACY,
    MAX_OPCODES,
    Refused,
    check_pickles,
    check_shape,
    unsafe_reason,
)
from stylegan2.public.rosinality import discriminator_from_rosinality, generator_from_rosinality
from stylegan2.public.safe_pickle import read_pickle
from stylegan2.weights import WeightsError

MAX_PICKLE = 4_000_000  # bytes of the pickle inside a zip file; e4e's has 0.1 MB
ESTIMATED = "estimated from 10,000 z, seed 0"


@dataclass(frozen=True)
class Foreign:
    """What one file holds. Networks are built when asked for.

    networks: "g_ema", "g", "d" -> a function that builds it. w_avg: where that of the generators comes from.
    encoder: the tensors of e4e, pSp and ReStyle encoders (without `encoder.`) or of an IR-SE50; latent_avg [L, D] or [D].
    encoder_type: what the file's options call the encoder, if they do. iterates: whether it is a ReStyle encoder, which
    sees six channels, an image and its last reconstruction.
    """

    path: Path
    kind: str
    networks: dict[str, Callable[[], nn.Module]]
    w_avg: str = "in the file"
    encoder: dict[str, Tensor] = field(default_factory=dict)
    latent_avg: Tensor | None = None
    encoder_type: str | None = None
    iterates: bool = False

    def build(self, name: str) -> nn.Module:
        """The network in eval mode, frozen; WeightsError (which names the file) if the tensors do not form one."""
        try:
            network = self.networks[name]()
        except WeightsError as error:
            raise WeightsError(f"{self.path}: {error}") from error
        return network.eval().requires_grad_(False)


def read_foreign(path: str | Path) -> Foreign:
    """Opens a file of NVIDIA's, rosinality's, e4e's, pSp's, ReStyle's or InsightFace's; WeightsError for any other."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file at {path}: check the path.")
    with open(path, "rb") as file:
        head = file.read(512)
    if head.lstrip()[:1] == b"<":
        raise WeightsError(f"{path} is a web page, not weights: download it again, in a browser if need be.")
    try:
        if head[:1] == b"\x80" and not head.startswith(LEGACY):
            return _nvidia(path)
        return _torch(path)
    except WeightsError as error:
        raise error if str(path) in str(error) else WeightsError(f"{path}: {error}") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A .pt file of tensors, opened without executing anything in it. Raises WeightsError.

    argparse.Namespace is admitted: training files hold their arguments as one.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file at {path}: check the path.")
    try:
        _check_container(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        check_shape(content)
        _check_tensors(content, 2 * path.stat().st_size)
    except Exception as error:  # torch.load raises half a dozen types for a damaged or unsafe file
        reason = str(error) if isinstance(error, Refused) else unsafe_reason(error)
        raise WeightsError(
            f"{path} is not a PyTorch file of plain tensors ({reason}); nothing in it was executed."
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a dict of tensors.")
    return content


def _check_container(path: Path) -> None:
    """Refused if opening the file could take much more memory than it has bytes."""
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
    """Refused if tensors are sparse or repeat their bytes: such a file could unpack to any size."""
    pending, seen = [content], set()
    while pending:
        node = pending.pop()
        if isinstance(node, Tensor):
            if node.layout != torch.strided or node.is_quantized or node.device.type != "cpu":
                raise Refused("it holds a tensor that is not plain")
            size = node.numel() * node.element_size()
            budget -= size
            if size > node.untyped_storage().nbytes() or budget < 0:
                raise Refused("it unpacks to more than its own size")
        elif isinstance(node, Mapping | list | tuple) and id(node) not in seen:
            seen.add(id(node))
            pending.extend(node.values() if isinstance(node, Mapping) else node)


def _nvidia(path: Path) -> Foreign:
    networks: dict[str, Callable[[], nn.Module]] = {}
    found = nvidia.records(read_pickle(path))
    for name, record in found.items():
        networks[name] = lambda name=name, record=record: nvidia.READERS[name](record)
    first = found.get("g_ema") or found.get("g")
    known = first is None or nvidia.has_w_avg(first)
    return Foreign(path, "NVIDIA snapshot (.pkl)", networks, "in the file" if known else ESTIMATED)


def _torch(path: Path) -> Foreign:
    content = read_checkpoint(path)
    clamp = nvidia.clamp_value(content.get("conv_clamp"))
    latent_avg = content.get("latent_avg")
    latent_avg = latent_avg if isinstance(latent_avg, Tensor) and latent_avg.numel() else None
    w_avg = "in the file (latent_avg)" if latent_avg is not None else ESTIMATED

    if isinstance(content.get("state_dict"), dict):
        return _encoder_and_decoder(path, content, latent_avg, w_avg)
    if any(isinstance(content.get(name), dict) for name in ("g_ema", "g", "d")):
        networks: dict[str, Callable[[], nn.Module]] = {}
        for name in ("g_ema", "g", "d"):
            if isinstance(content.get(name), dict):
                networks[name] = _rosinality(name, tensors(content[name]), latent_avg, clamp)
        return Foreign(path, "rosinality checkpoint", networks, w_avg)

    state = tensors(content)
    if "mapping.fc0.weight" in state or "b4.conv.weight" in state:
        name = "g_ema" if "mapping.fc0.weight" in state else "d"
        known = name == "d" or "mapping.w_avg" in state
        networks = {name: lambda: nvidia.from_nvidia(state)}
        return Foreign(
            path, "state dict with NVIDIA's names", networks, "in the file" if known else ESTIMATED
        )
    if "to_rgb1.bias" in state or "final_conv.0.weight" in state:
        name = "g_ema" if "to_rgb1.bias" in state else "d"
        networks = {name: _rosinality(name, state, latent_avg, clamp)}
        return Foreign(path, "state dict with rosinality's names", networks, w_avg)
    if "input_layer.0.weight" in state and "output_layer.3.weight" in state:
        return Foreign(path, "IR-SE50 (ArcFace)", {}, encoder=dict(state))
    raise WeightsError(
        "The file holds none of the networks that can be read here: NVIDIA or rosinality StyleGAN2, e4e, pSp, ReStyle, "
        "IR-SE50."
    )


def _encoder_and_decoder(
    path: Path, content: dict[str, Any], latent_avg: Tensor | None, w_avg: str
) -> Foreign:
    """e4e, pSp, ReStyle: both networks in one state dict, behind prefixes."""
    state = tensors(content["state_dict"])
    encoder, decoder = (_behind(state, prefix) for prefix in ("encoder.", "decoder."))
    if not encoder and not decoder:
        raise WeightsError("Its state_dict holds neither `encoder.` nor `decoder.` tensors.")
    options = content.get("opts")
    options = vars(options) if isinstance(options, argparse.Namespace) else options
    options = options if isinstance(options, dict) else {}
    first = encoder.get("input_layer.0.weight", encoder.get("conv1.weight"))  # of an IR-SE or a ResNet body
    iterates = first is not None and first.ndim == 4 and first.shape[1] == 6
    kind = "ReStyle checkpoint" if iterates else "e4e or pSp checkpoint"
    networks: dict[str, Callable[[], nn.Module]] = {}
    if decoder:
        networks["g_ema"] = _rosinality("g_ema", decoder, latent_avg, None)
    return Foreign(
        path,
        kind,
        networks,
        w_avg,
        encoder,
        latent_avg,
        str(options["encoder_type"])[:60] if "encoder_type" in options else None,
        iterates,
    )


def _rosinality(
    name: str, state: Mapping[str, Tensor], latent_avg: Tensor | None, clamp: float | None
) -> Callable[[], nn.Module]:
    if name == "d":
        return lambda: discriminator_from_rosinality(state, clamp)
    return lambda: generator_from_rosinality(state, latent_avg, clamp)


def tensors(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The dict itself if it holds tensors only (its `_metadata` stays), or its tensors."""
    if all(isinstance(value, Tensor) for value in content.values()):
        return content
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _behind(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
