"""Converts public weights to our files and exports ours, as scripts/convert_weights.py describes."""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from configs.schema import Config
from encoders.networks.e4e import FullEncoder, from_public
from encoders.networks.ir_se import IDENTITY_SIDE, IdentityNet, identity_from_public
from scripts.core.runtime import Run, RunError, shown
from stylegan2.load import EMBEDDED, load_generator
from stylegan2.networks.discriminator import Discriminator
from stylegan2.networks.generator import StyleGAN2
from stylegan2.protocol import sample_w
from stylegan2.public.checkpoints import ESTIMATED, PublicCheckpoint, read_public_checkpoint
from stylegan2.public.nvidia import to_nvidia
from stylegan2.public.rosinality import discriminator_to_rosinality, generator_to_rosinality
from stylegan2.weights import WeightsError, atomic_path, file_hash, fill, read_weights, save_weights
from tuning.tuned_weights import KIND as TUNED
from tuning.tuned_weights import load_tuned

# encoder type in a file's options -> kind of our encoder (meaning of its heads)
ENCODERS: dict[str, Literal["e4e", "psp"]] = {"Encoder4Editing": "e4e", "GradualStyleEncoder": "psp"}
Table = dict[str, Any]  # rows of the printed table


def convert_weights(config: Config, run: Run) -> Path:
    if config.input is None or config.output is None:
        raise RunError("Give input=FILE and output=FILE.")
    source, target = Path(config.input), Path(config.output)
    exporting = source.suffix == ".safetensors"
    # read
    if exporting:
        _check_suffix(target, (".pt", ".pth"), "our .safetensors are exported to a PyTorch file")
        network, table = read_own(source, config), {"kind": f"export in {config.layout}'s layout"}
    else:
        _check_suffix(target, (".safetensors",), "public weights are converted to a .safetensors")
        network, table = read_public(read_public_checkpoint(source), config.network)
    # check and write
    try_out(network, source)
    table |= describe(network)
    if exporting:
        export(network, target, config.layout)
    else:
        save_own(network, source, target, table)
    # report
    table |= {"sha256 of the input": file_hash(source), "sha256 of the output": file_hash(target)}
    run.say("\n".join(f"  {name:<22} {value}" for name, value in table.items()))
    if exporting and config.layout == "rosinality" and table["conv_clamp"] != "none":
        run.say("Note: rosinality's code has no clamp; values beyond it will differ there.")
    if table.get("w_avg") == ESTIMATED:
        run.say(f"Note: the file has no mean of W; it was {ESTIMATED}.")
    run.say(f"wrote {shown(target)}")
    return target


def read_public(checkpoint: PublicCheckpoint, name: str) -> tuple[nn.Module, Table]:
    """The network of that name (the encoder if the file holds no other), and the first rows of the printed table."""
    table: Table = {"kind": checkpoint.kind}
    if name == "encoder" or not checkpoint.networks:
        try:
            network, rows = _encoder(checkpoint)
        except WeightsError as error:
            raise WeightsError(f"{checkpoint.path}: {error}") from error
        return network, table | rows
    if name not in checkpoint.networks:
        raise RunError(
            f"{checkpoint.path} holds no network {name!r}, only {', '.join(checkpoint.networks)}: "
            f"choose with network={next(iter(checkpoint.networks))}."
        )
    network = checkpoint.build(name)
    names = [*checkpoint.networks, *["encoder"] * bool(checkpoint.encoder)]
    table |= {"networks in the file": ", ".join(names), "written": name}
    return network, table | ({"w_avg": checkpoint.w_avg} if isinstance(network, StyleGAN2) else {})


def _encoder(checkpoint: PublicCheckpoint) -> tuple[nn.Module, Table]:
    """The encoder of a file, and its rows of the table.

    e4e and pSp encoders have the same shapes and differ in the meaning of their heads, so the kind is read from the
    file's options.
    """
    if not checkpoint.encoder:
        raise RunError(f"{checkpoint.path} ({checkpoint.kind}) holds no encoder.")
    if "output_layer.3.weight" in checkpoint.encoder:
        return identity_from_public(checkpoint.encoder), {"written": "recognition network"}
    if checkpoint.encoder_type not in ENCODERS:
        known = " and ".join(f"{name} ({kind})" for name, kind in ENCODERS.items())
        raise RunError(
            f"{checkpoint.path} ({checkpoint.kind}) holds an encoder of the type "
            f"{checkpoint.encoder_type or 'unknown'!r}; only {known} can be converted."
        )
    kind, latent_avg, w_avg = ENCODERS[checkpoint.encoder_type], checkpoint.latent_avg, checkpoint.w_avg
    if latent_avg is None and checkpoint.networks:
        latent_avg = cast(StyleGAN2, checkpoint.build("g_ema")).w_avg
    if latent_avg is None:
        raise RunError(
            f"{checkpoint.path} holds an encoder but neither latent_avg nor the decoder it belongs to."
        )
    network = from_public(checkpoint.encoder, latent_avg, kind)
    return network, {"written": f"{kind} encoder", "rows of W+": network.num_rows, "w_avg": w_avg}


def read_own(source: Path, config: Config) -> nn.Module:
    """The StyleGAN2 network in one of our files; for a tuned generator, base and differences are combined."""
    weights = read_weights(source)
    if weights.kind == "discriminator":
        return fill(lambda: Discriminator(**weights.config), weights, source).eval()
    if weights.kind == TUNED:
        base = EMBEDDED if config.generator.weights == "embedded" else Path(config.generator.weights)
        network = load_tuned(source, load_generator(base), file_hash(base))
    else:
        network = load_generator(source)
    if not isinstance(network, StyleGAN2):
        raise RunError(
            f"{source} belongs to a wavelet generator, which no other code can load: only a StyleGAN2 can be exported."
        )
    return network


@torch.no_grad()
def try_out(network: Any, source: Path) -> None:
    """Computes one output. Raises RunError unless it is finite."""
    if isinstance(network, StyleGAN2):
        result = network.synthesis(sample_w(network, 1, seed=0))
    elif isinstance(network, Discriminator):
        shape = (1, 3, network.resolution, network.resolution)
        result = network(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    else:
        side = IDENTITY_SIDE if isinstance(network, IdentityNet) else network.side
        result = network(torch.zeros(1, 3, side, side))
    if not bool(torch.isfinite(result).all()):
        raise RunError(
            f"{source} was read, but its network computes NaN or infinity: the file is damaged, and nothing was written."
        )


def describe(network: Any) -> Table:
    """The rows of the printed table that describe the network."""
    table: Table = {"parameters": f"{sum(p.numel() for p in network.parameters()):,}"}
    if isinstance(network, StyleGAN2 | Discriminator):
        clamp = network.conv_clamp
        table |= {
            "resolution": f"{network.resolution} px",
            "channels": " ".join(f"{size}:{count}" for size, count in network.channels.items()),
            "conv_clamp": "none" if clamp is None else f"{clamp:g}",
        }
    if isinstance(network, StyleGAN2):
        table |= {"mapping layers": network.mapping.num_layers, "rows of W+": network.num_rows}
        table["z, w"] = f"{network.z_dim}, {network.w_dim}"
    return table


def save_own(network: Any, source: Path, target: Path, table: Table) -> None:
    """Writes our file, with its origin in the notes."""
    kinds = {StyleGAN2: "stylegan2", Discriminator: "discriminator"}
    kind = kinds.get(type(network)) or network.kind
    config = network.file_config() if isinstance(network, FullEncoder) else network.config
    origin = {"file": source.name, "sha256": file_hash(source), **table}
    notes = {"converted_from": origin, "licence": "as the source's: see docs/WEIGHTS.md"}
    save_weights(network, target, kind, config, notes)


def export(network: Any, target: Path, layout: str) -> None:
    """Writes a .pt that torch.load(weights_only=True) opens.

    nvidia: the plain state dict. rosinality: {"g_ema": state dict, "latent_avg"} or {"d": state dict} like its
    checkpoints, with the clamp, if there is one, as "conv_clamp".
    """
    content: Any
    if layout == "nvidia":
        content = to_nvidia(network)
    elif isinstance(network, StyleGAN2):
        content = {"g_ema": generator_to_rosinality(network), "latent_avg": network.w_avg.detach().clone()}
    else:
        content = {"d": discriminator_to_rosinality(network)}
    if layout == "rosinality" and network.conv_clamp is not None:
        content["conv_clamp"] = network.conv_clamp
    with atomic_path(target) as temporary:
        torch.save(content, temporary)


def _check_suffix(target: Path, suffixes: tuple[str, ...], reason: str) -> None:
    if target.suffix not in suffixes:
        raise RunError(f"output={target} must end in {' or '.join(suffixes)}: {reason}.")
