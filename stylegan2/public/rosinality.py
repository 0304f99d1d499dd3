"""rosinality state dicts <-> ours (whose names are NVIDIA's): the same numbers under other names and shapes.

Both directions are renaming and reshaping only; FIR filters are fixed, so they are dropped and written anew
(rosinality's generator stores them times 4).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from stylegan2.networks.discriminator import Discriminator
from stylegan2.networks.generator import StyleGAN2, sizes
from stylegan2.networks.ops import fir
from stylegan2.weights import WeightsError

State = Mapping[str, Tensor]

# (rosinality, ours) of the tensors of one layer
LAYER = [
    ("conv.weight", "weight"),
    ("conv.modulation.weight", "affine.weight"),
    ("conv.modulation.bias", "affine.bias"),
]
CONV = [*LAYER, ("activate.bias", "bias"), ("noise.weight", "noise_strength")]
RGB = [*LAYER, ("bias", "bias")]


def generator_keys(resolution: int, mapping_layers: int) -> dict[str, str]:
    """rosinality key -> our key, for every tensor of a generator but w_avg (which rosinality keeps beside it)."""
    names = {
        f"style.{i + 1}.{p}": f"mapping.fc{i}.{p}" for i in range(mapping_layers) for p in ("weight", "bias")
    }
    names["input.input"] = "synthesis.b4.const"

    def layer(theirs: str, ours: str, table: list[tuple[str, str]], noise: int | None = None) -> None:
        names.update({f"{theirs}.{a}": f"synthesis.{ours}.{b}" for a, b in table})
        if noise is not None:
            names[f"noises.noise_{noise}"] = f"synthesis.{ours}.noise_const"

    layer("conv1", "b4.conv1", CONV, noise=0)
    layer("to_rgb1", "b4.torgb", RGB)
    for j, size in enumerate(sizes(resolution)[1:]):
        layer(f"convs.{2 * j}", f"b{size}.conv0", CONV, noise=2 * j + 1)
        layer(f"convs.{2 * j + 1}", f"b{size}.conv1", CONV, noise=2 * j + 2)
        layer(f"to_rgbs.{j}", f"b{size}.torgb", RGB)
    return names


def discriminator_keys(resolution: int) -> dict[str, str]:
    """rosinality key -> our key, for every tensor of a discriminator."""
    names = {
        "convs.0.0.weight": f"b{resolution}.fromrgb.weight",
        "convs.0.1.bias": f"b{resolution}.fromrgb.bias",
    }
    for k, size in enumerate(sizes(resolution)[:0:-1], start=1):
        names |= {
            f"convs.{k}.conv1.0.weight": f"b{size}.conv0.weight",
            f"convs.{k}.conv1.1.bias": f"b{size}.conv0.bias",
            f"convs.{k}.conv2.1.weight": f"b{size}.conv1.weight",
            f"convs.{k}.conv2.2.bias": f"b{size}.conv1.bias",
            f"convs.{k}.skip.1.weight": f"b{size}.skip.weight",
        }
    names |= {"final_conv.0.weight": "b4.conv.weight", "final_conv.1.bias": "b4.conv.bias"}
    names |= {f"final_linear.0.{p}": f"b4.fc.{p}" for p in ("weight", "bias")}
    return names | {f"final_linear.1.{p}": f"b4.out.{p}" for p in ("weight", "bias")}


def generator_from_rosinality(
    state: State, latent_avg: Tensor | None = None, conv_clamp: float | None = None
) -> StyleGAN2:
    """Keys may sit behind `decoder.` (e4e, pSp, ReStyle files). latent_avg (D,) or (L, D); estimated if absent."""
    if any(key.startswith("decoder.") for key in state):
        state = {
            key.removeprefix("decoder."): value for key, value in state.items() if key.startswith("decoder.")
        }
    rgbs = sum(re.fullmatch(r"to_rgbs\.\d+\.conv\.weight", key) is not None for key in state)
    layers = sum(re.fullmatch(r"style\.\d+\.weight", key) is not None for key in state)
    if not 1 <= rgbs <= 8 or not layers:
        raise WeightsError(
            "These tensors are not a rosinality StyleGAN2 generator (no to_rgbs.* or style.*)."
        )
    names = generator_keys(2 ** (rgbs + 2), layers)
    ours = _rename(
        state, {theirs: name for theirs, name in names.items() if not name.endswith("noise_const")}
    )
    # early files hold no noise: any constant will do, but always the same
    random = torch.Generator().manual_seed(0)
    for theirs, name in names.items():
        if name.endswith("noise_const"):
            size = int(name.split(".")[1][1:])
            known = theirs in state
            ours[name] = (
                _reshape(state[theirs], theirs) if known else torch.randn(size, size, generator=random)
            )
    if latent_avg is not None:
        ours["mapping.w_avg"] = (
            latent_avg.reshape(-1, latent_avg.shape[-1])[0] if latent_avg.numel() else latent_avg
        )
    return StyleGAN2.from_state_dict(ours, conv_clamp)


def generator_to_rosinality(generator: StyleGAN2) -> dict[str, Tensor]:
    """The state dict that rosinality's Generator loads strictly; w_avg is `latent_avg` beside it."""
    ours = generator.state_dict()
    state = {}
    for theirs, name in generator_keys(generator.resolution, generator.mapping.num_layers).items():
        value = ours[name].detach().clone()
        if theirs.endswith("conv.weight") or theirs == "input.input":
            value = value[None]
        elif theirs.startswith("to_rgb") and theirs.endswith("bias") and "modulation" not in theirs:
            value = value[None, :, None, None]
        elif theirs.endswith("noise.weight"):
            value = value[None]
        elif theirs.startswith("noises."):
            value = value[None, None]
        state[theirs] = value
    for j in range(len(generator.channels) - 1):
        state[f"convs.{2 * j}.conv.blur.kernel"] = _kernel() * 4
        state[f"to_rgbs.{j}.upsample.kernel"] = _kernel() * 4
    return state


def discriminator_from_rosinality(state: State, conv_clamp: float | None = None) -> Discriminator:
    blocks = sum(re.fullmatch(r"convs\.\d+\.skip\.1\.weight", key) is not None for key in state)
    if not 1 <= blocks <= 8 or "final_conv.0.weight" not in state or "convs.0.0.weight" not in state:
        raise WeightsError(
            "These tensors are not a rosinality StyleGAN2 discriminator (no convs.*.skip or final_conv)."
        )
    return Discriminator.from_state_dict(_rename(state, discriminator_keys(2 ** (blocks + 2))), conv_clamp)


def discriminator_to_rosinality(discriminator: Discriminator) -> dict[str, Tensor]:
    """The state dict that rosinality's Discriminator loads strictly."""
    ours = discriminator.state_dict()
    keys = discriminator_keys(discriminator.resolution)
    state = {theirs: ours[name].detach().clone() for theirs, name in keys.items()}
    for k in range(1, len(discriminator.sizes) + 1):
        state[f"convs.{k}.conv2.0.kernel"] = _kernel()
        state[f"convs.{k}.skip.0.kernel"] = _kernel()
    return state


def _rename(state: State, names: dict[str, str]) -> dict[str, Tensor]:
    missing = [theirs for theirs in names if theirs not in state]
    if missing:
        raise WeightsError(f"These tensors do not form a StyleGAN2 network: {missing[0]} is missing.")
    return {ours: _reshape(state[theirs], theirs) for theirs, ours in names.items()}


def _reshape(value: Tensor, theirs: str) -> Tensor:
    """Drops rosinality's axes of length one. What has another shape stays as it is: the network will refuse it."""
    if theirs.endswith("noise.weight") and value.numel() == 1:
        return value.reshape(())
    if theirs.startswith("noises.") and value.shape[:2] == (1, 1):
        return value[0, 0]
    if (theirs.endswith("conv.weight") or theirs == "input.input") and value.shape[:1] == (1,):
        return value[0]
    return value.reshape(-1) if theirs.endswith("bias") else value


def _kernel() -> Tensor:
    return fir(torch.zeros(1, 1))[0, 0].clone()
