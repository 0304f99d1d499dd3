"""Reads weights of others (NVIDIA .pkl; rosinality, e4e, pSp, ReStyle, IR-SE50 .pt) without executing anything in them,
prints what it found, tries the network, and writes a .safetensors that generator.weights= takes, or, with
network=encoder, encoder.weights= (IR-SE50: encoder_train.identity=). Given one of our
.safetensors it goes the other way and writes a .pt in the layout of rosinality's or NVIDIA's code; a generator tuned by
train_stage2.py is exported whole (generator.weights= names the one it was tuned from).
"""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from configs.schema import Config
from encoders.networks.e4e import FullEncoder, from_public
from encoders.networks.ir_se import IDENTITY_SIDE, IdentityNet, identity_from_public
from encoders.restyle import ReStyle, restyle_from_public
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

Kind = Literal["e4e", "psp"]
ENCODERS: dict[str, Kind] = {"Encoder4Editing": "e4e", "GradualStyleEncoder": "psp"}
RESTYLE: dict[str, Kind] = {"ProgressiveBackboneEncoder": "e4e", "BackboneEncoder": "psp"}


def convert_weights(config: Config, run: Run) -> Path:
    if config.input is None or config.output is None:
        raise RunError("Give input=FILE and output=FILE.")
    source, target = Path(config.input), Path(config.output)
    exporting = source.suffix == ".safetensors"
    if exporting:
        _expect(target, (".pt", ".pth"), "our .safetensors are exported to a PyTorch file")
        network, found = ours(source, config), {"kind": f"export in {config.layout}'s layout"}
    else:
        _expect(target, (".safetensors",), "weights of others become a .safetensors")
        network, found = theirs(read_public_checkpoint(source), config.network)
    try_out(network, source)
    found |= describe(network)
    if exporting:
        export(network, target, config.layout)
    else:
        keep(network, source, target, found)
    found |= {"sha256 of the input": file_hash(source), "sha256 of the output": file_hash(target)}
    run.say("\n".join(f"  {name:<22} {value}" for name, value in found.items()))
    if exporting and config.layout == "rosinality" and found["conv_clamp"] != "none":
        run.say("Note: rosinality's code has no clamp; values beyond it will differ there.")
    if found.get("w_avg") == ESTIMATED:
        run.say(f"Note: the file has no mean of W; it was {ESTIMATED}.")
    run.say(f"wrote {shown(target)}")
    return target


def theirs(foreign: PublicCheckpoint, name: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network of that name, or the encoder of a file that holds nothing else; and what the table says of it."""
    found: dict[str, Any] = {"kind": foreign.kind}
    if name == "encoder" or not foreign.networks:
        try:
            network, more = _encoder(foreign)
        except WeightsError as error:
            raise WeightsError(f"{foreign.path}: {error}") from error
        return network, found | more
    if name not in foreign.networks:
        raise RunError(
            f"{foreign.path} holds no network {name!r}, only {', '.join(foreign.networks)}: "
            f"choose with network={next(iter(foreign.networks))}."
        )
    network = foreign.build(name)
    found["networks in the file"] = ", ".join([*foreign.networks, *["encoder"] * bool(foreign.encoder)])
    found["written"] = name
    if isinstance(network, StyleGAN2):
        found["w_avg"] = foreign.w_avg
    return network, found


def _encoder(foreign: PublicCheckpoint) -> tuple[nn.Module, dict[str, Any]]:
    """Two encoders of one shape may differ in what their heads mean: the file's options say which it is."""
    if not foreign.encoder:
        raise RunError(f"{foreign.path} ({foreign.kind}) holds no encoder.")
    if "output_layer.3.weight" in foreign.encoder:
        return identity_from_public(foreign.encoder), {"written": "recognition network"}
    if foreign.encoder_type not in (names := RESTYLE if foreign.iterates else ENCODERS):
        known = " and ".join(f"{name} ({kind})" for name, kind in names.items())
        raise RunError(
            f"{foreign.path} ({foreign.kind}) holds an encoder of the type {foreign.encoder_type or 'unknown'!r}; only "
            f"{known} can be converted."
        )
    kind, latent_avg = names[foreign.encoder_type], foreign.latent_avg
    if latent_avg is None and foreign.networks:
        latent_avg = cast(StyleGAN2, foreign.build("g_ema")).w_avg
    if latent_avg is None:
        raise RunError(
            f"{foreign.path} holds an encoder but neither latent_avg nor the decoder it belongs to."
        )
    read = restyle_from_public if foreign.iterates else from_public
    network = read(foreign.encoder, latent_avg, kind)
    w_avg = foreign.w_avg if foreign.latent_avg is None else "in the file (latent_avg)"
    what = f"{'ReStyle-' if foreign.iterates else ''}{kind} encoder"
    return network, {"written": what, "rows of W+": network.num_rows, "w_avg": w_avg}


def keep(network: Any, source: Path, target: Path, found: dict[str, Any]) -> None:
    """Writes our file, with where it comes from."""
    if isinstance(network, StyleGAN2 | Discriminator):
        kind = "stylegan2" if isinstance(network, StyleGAN2) else "discriminator"
    else:
        kind = network.kind
    config = network.file_config() if isinstance(network, FullEncoder | ReStyle) else network.config
    origin = {"file": source.name, "sha256": file_hash(source), **found}
    notes = {"converted_from": origin, "licence": "as the source's: see docs/WEIGHTS.md"}
    save_weights(network, target, kind, config, notes)


def ours(source: Path, config: Config) -> nn.Module:
    """The StyleGAN2 network in one of our files."""
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
    """One forward pass; RunError unless every number that comes out is finite."""
    if isinstance(network, StyleGAN2):
        result = network.synthesis(sample_w(network, 1, seed=0))
    elif isinstance(network, Discriminator):
        shape = (1, 3, network.resolution, network.resolution)
        result = network(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    elif isinstance(network, IdentityNet):
        result = network(torch.zeros(1, 3, IDENTITY_SIDE, IDENTITY_SIDE))
    else:
        grey = torch.zeros(1, 3, network.side, network.side)
        result = network(grey, grey) if isinstance(network, ReStyle) else network(grey)
    if not bool(torch.isfinite(result).all()):
        raise RunError(
            f"{source} was read, but its network computes NaN or infinity: it is damaged, not written."
        )


def describe(network: Any) -> dict[str, Any]:
    """The rows of the table that the network itself decides."""
    parameters = f"{sum(p.numel() for p in network.parameters()):,}"
    if not isinstance(network, StyleGAN2 | Discriminator):
        return {"parameters": parameters}
    config = network.config
    table = " ".join(f"{size}:{count}" for size, count in config["channels"].items())
    found = {"resolution": f"{config['resolution']} px", "channels": table, "parameters": parameters}
    found["conv_clamp"] = "none" if config["conv_clamp"] is None else f"{config['conv_clamp']:g}"
    if isinstance(network, StyleGAN2):
        found |= {"mapping layers": config["mapping_layers"], "rows of W+": network.num_rows}
        found |= {"z, w": f"{config['z_dim']}, {config['w_dim']}"}
    return found


def export(network: Any, target: Path, layout: str) -> None:
    """A .pt that torch.load(weights_only=True) opens.

    nvidia: the plain state dict. rosinality: {"g_ema": state dict, "latent_avg"} or {"d": state dict}, as its
    checkpoints; a clamp is noted beside it.
    """
    if layout == "nvidia":
        content: Any = to_nvidia(network)
    elif isinstance(network, StyleGAN2):
        content = {"g_ema": generator_to_rosinality(network), "latent_avg": network.w_avg.detach().clone()}
    else:
        content = {"d": discriminator_to_rosinality(network)}
    if layout == "rosinality" and network.conv_clamp is not None:
        content["conv_clamp"] = network.conv_clamp
    with atomic_path(target) as temporary:
        torch.save(content, temporary)


def _expect(target: Path, suffixes: tuple[str, ...], reason: str) -> None:
    if target.suffix not in suffixes:
        raise RunError(f"output={target} must end in {' or '.join(suffixes)}: {reason}.")
