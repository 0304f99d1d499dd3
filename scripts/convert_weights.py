"""python scripts/convert_weights.py input=FILE output=FILE [network=g_ema|g|d|encoder] [layout=rosinality|nvidia]

Reads weights of others (NVIDIA .pkl; rosinality, e4e, pSp, ReStyle, IR-SE50 .pt) without executing anything in them,
prints what it found, tries the network, and writes a .safetensors that generator.weights= takes, or, with
network=encoder, encoder.weights= (IR-SE50: encoder_train.identity=). Given one of our
.safetensors it goes the other way and writes a .pt in the layout of rosinality's or NVIDIA's code; a generator tuned by
train_stage2.py is exported whole (generator.weights= names the one it was tuned from).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from typing import Any, Literal, cast

import torch
from torch import nn

from configs.schema import Config
from encoders.backbone import IDENTITY_SIDE, IdentityNet, identity_from_public
from encoders.e4e_full import FullEncoder, from_public
from scripts.runtime import Run, RunError, launch, shown
from stylegan2.checkpoints import ESTIMATED, Foreign, read_foreign
from stylegan2.convert import discriminator_to_rosinality, generator_to_rosinality
from stylegan2.discriminator import Discriminator
from stylegan2.generator import StyleGAN2
from stylegan2.nvidia import to_nvidia
from stylegan2.protocol import sample_w
from stylegan2.weights import (
    EMBEDDED,
    WeightsError,
    assemble,
    atomic_path,
    file_hash,
    load_generator,
    read_weights,
    save_weights,
)
from tuning.weights import KIND as TUNED
from tuning.weights import load_tuned


def convert_weights(config: Config, run: Run) -> Path:
    if config.input is None or config.output is None:
        raise RunError("Give input=FILE and output=FILE.")
    source, target = Path(config.input).expanduser(), Path(config.output).expanduser()
    if source.suffix == ".safetensors":
        _expect(target, (".pt", ".pth"), "our .safetensors are exported to a PyTorch file")
        network, found = ours(source, config), {"kind": f"export in {config.layout}'s layout"}
    else:
        _expect(target, (".safetensors",), "weights of others become a .safetensors")
        foreign = read_foreign(source)
        if config.network == "encoder" or not foreign.networks:
            return write_encoder(foreign, target, run)
        if config.network not in foreign.networks:
            raise RunError(
                f"{source} holds no network {config.network!r}, only {', '.join(foreign.networks)}: "
                f"choose with network={next(iter(foreign.networks))}."
            )
        network, found = foreign.build(config.network), {"kind": foreign.kind}
        found["networks in the file"] = ", ".join([*foreign.networks, *["encoder"] * bool(foreign.encoder)])
        found["written"] = config.network
        if isinstance(network, StyleGAN2):
            found["w_avg"] = foreign.w_avg
    try_out(network, source)

    found |= describe(network)
    if source.suffix == ".safetensors":
        export(network, target, config.layout)
        if config.layout == "rosinality" and found["conv_clamp"] != "none":
            run.say("Note: rosinality's code has no clamp; values beyond it will differ there.")
    else:
        kind = "stylegan2" if isinstance(network, StyleGAN2) else "discriminator"
        origin = {"file": source.name, "sha256": file_hash(source), **found}
        notes = {"converted_from": origin, "licence": "as the source's: see docs/WEIGHTS.md"}
        save_weights(network, target, kind, network.config, notes)  # type: ignore[arg-type]
    found["sha256 of the input"], found["sha256 of the output"] = file_hash(source), file_hash(target)
    run.say("\n".join(f"  {name:<22} {value}" for name, value in found.items()))
    if found.get("w_avg") == ESTIMATED:
        run.say(f"Note: the file has no mean of W; it was {ESTIMATED}.")
    run.say(f"wrote {shown(target)}")
    return target


def write_encoder(foreign: Foreign, target: Path, run: Run) -> Path:
    """e4e and pSp -> what encoder.weights= takes; IR-SE50 -> what encoder_train.identity= takes."""
    if not foreign.encoder:
        raise RunError(f"{foreign.path} ({foreign.kind}) holds no encoder.")
    try:
        network, found = _encoder(foreign)
    except WeightsError as error:
        raise WeightsError(f"{foreign.path}: {error}") from error
    side = IDENTITY_SIDE if isinstance(network, IdentityNet) else network.side
    try_out(network, foreign.path, torch.zeros(1, 3, side, side))
    found = {"kind": foreign.kind, **found, "parameters": f"{sum(p.numel() for p in network.parameters()):,}"}
    config = network.config if isinstance(network, IdentityNet) else network.file_config()
    origin = {"file": foreign.path.name, "sha256": file_hash(foreign.path), **found}
    notes = {"converted_from": origin, "licence": "as the source's: see docs/WEIGHTS.md"}
    save_weights(network, target, network.kind, config, notes)
    found |= {"sha256 of the input": origin["sha256"], "sha256 of the output": file_hash(target)}
    run.say("\n".join(f"  {name:<22} {value}" for name, value in found.items()))
    run.say(f"wrote {shown(target)}")
    return target


def _encoder(foreign: Foreign) -> tuple[FullEncoder | IdentityNet, dict[str, Any]]:
    """The network, and the rows of the table that describe it. e4e and pSp differ in nothing but the file's options."""
    if "output_layer.3.weight" in foreign.encoder:
        return identity_from_public(foreign.encoder), {"written": "recognition network"}
    names = {"Encoder4Editing": "e4e", "GradualStyleEncoder": "psp"}
    if foreign.encoder_type not in names:
        raise RunError(
            f"{foreign.path} ({foreign.kind}) holds an encoder of the type {foreign.encoder_type or 'unknown'!r}; only "
            f"{' (e4e) and '.join(names)} (pSp) can be converted."
        )
    latent_avg = foreign.latent_avg
    if latent_avg is None and foreign.networks:
        latent_avg = cast(StyleGAN2, foreign.build("g_ema")).w_avg
    if latent_avg is None:
        raise RunError(
            f"{foreign.path} holds an encoder but neither latent_avg nor the decoder it belongs to."
        )
    kind = cast("Literal['e4e', 'psp']", names[foreign.encoder_type])
    network = from_public(foreign.encoder, latent_avg, kind)
    w_avg = foreign.w_avg if foreign.latent_avg is None else "in the file (latent_avg)"
    return network, {"written": f"{kind} encoder", "rows of W+": network.num_rows, "w_avg": w_avg}


def ours(source: Path, config: Config) -> nn.Module:
    """The StyleGAN2 network in one of our files."""
    weights = read_weights(source)
    if weights.kind == "discriminator":
        return assemble(
            lambda: Discriminator(**weights.config), weights.state, "StyleGAN2 discriminator"
        ).eval()
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
def try_out(network: nn.Module, source: Path, x: torch.Tensor | None = None) -> None:
    """One forward pass (of x, or of what the network takes); RunError unless every number that comes out is finite."""
    if isinstance(network, StyleGAN2):
        result = network.synthesis(sample_w(network, 1, seed=0))
    else:
        if isinstance(network, Discriminator):
            shape = (1, 3, network.resolution, network.resolution)
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        result = network(x)
    if not bool(torch.isfinite(result).all()):
        raise RunError(
            f"{source} was read, but its network computes NaN or infinity: it is damaged, not written."
        )


def describe(network: Any) -> dict[str, Any]:
    """The rows of the table that the network itself decides."""
    config = network.config
    parameters = sum(p.numel() for p in network.parameters())
    table = " ".join(f"{size}:{count}" for size, count in config["channels"].items())
    found = {"resolution": f"{config['resolution']} px", "channels": table, "parameters": f"{parameters:,}"}
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


if __name__ == "__main__":
    launch(convert_weights)
