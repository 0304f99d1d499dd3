"""python scripts/convert_weights.py input=FILE output=FILE [network=g_ema|g|d|encoder] [layout=rosinality|nvidia]

Reads weights of others (NVIDIA .pkl; rosinality, e4e, pSp, ReStyle, IR-SE50 .pt) without executing anything in them,
prints what it found, tries the network, and writes a .safetensors that generator.weights= takes. Given one of our
.safetensors it goes the other way and writes a .pt in the layout of rosinality's or NVIDIA's code; a generator tuned by
train_stage2.py is exported whole (generator.weights= names the one it was tuned from).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from typing import Any

import torch
from torch import nn

from configs.schema import Config
from scripts.runtime import Run, RunError, launch, shown
from stylegan2.checkpoints import ESTIMATED, Foreign, read_foreign
from stylegan2.convert import discriminator_to_rosinality, generator_to_rosinality
from stylegan2.discriminator import Discriminator
from stylegan2.generator import StyleGAN2
from stylegan2.nvidia import to_nvidia
from stylegan2.protocol import sample_w
from stylegan2.weights import (
    EMBEDDED,
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
    """PLUG-IN POINT for the encoder networks: `foreign.encoder` holds their tensors, `foreign.latent_avg` the mean.

    Until the full-size networks are connected here, an encoder is recognised but not written.
    """
    if not foreign.encoder:
        raise RunError(f"{foreign.path} ({foreign.kind}) holds no encoder.")
    remedy = "network=g_ema writes its generator" if foreign.networks else "give a file with a generator"
    raise RunError(
        f"{foreign.path} ({foreign.kind}) holds an encoder of {len(foreign.encoder)} tensors, which cannot be converted "
        f"yet; {remedy}."
    )


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
def try_out(network: nn.Module, source: Path) -> None:
    """One forward pass; RunError unless every number that comes out is finite."""
    if isinstance(network, StyleGAN2):
        result = network.synthesis(sample_w(network, 1, seed=0))
    else:
        assert isinstance(network, Discriminator)
        noise = torch.randn(
            1, 3, network.resolution, network.resolution, generator=torch.Generator().manual_seed(0)
        )
        result = network(noise)
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
