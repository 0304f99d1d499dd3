"""rosinality state dicts <-> ours (whose names are NVIDIA's): the same numbers under other names and shapes.

Both directions only rename and reshape. FIR filters are fixed, so they are dropped and written anew (rosinality's
generator stores them times 4).
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

    def layer(key: str, ours: str, table: list[tuple[str, str]], noise: int | None = None) -> None:
        names.update({f"{key}.{a}": f"synthesis.{ours}.{b}" for a, b in table})
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
    """Raises WeightsError if the tensors form no generator. latent_avg: (D,) or (L, D); estimated if absent."""
    rgbs = sum(re.fullmatch(r"to_rgbs\.\d+\.conv\.weight", key) is not None for key in state)
    layers = sum(re.fullmatch(r"style\.\d+\.weight", key) is not None for key in state)
    if not 1 <= rgbs <= 8 or not layers:
        raise WeightsError(
            "These tensors are not a rosinality StyleGAN2 generator (no to_rgbs.* or style.*)."
        )
    # early files contain no noise patterns: fixed random ones are used instead
    random, noises = torch.Generator().manual_seed(0), {}
    for i in range(2 * rgbs + 1):
        if (key := f"noises.noise_{i}") not in state:
            size = 2 ** ((i + 5) // 2)
            noises[key] = torch.randn(1, 1, size, size, generator=random)
    tensors = _rename({**state, **noises}, generator_keys(2 ** (rgbs + 2), layers))
    if latent_avg is not None:
        tensors["mapping.w_avg"] = latent_avg.flatten(0, -2)[0] if latent_avg.ndim > 1 else latent_avg
    return StyleGAN2.from_state_dict(tensors, conv_clamp)


def generator_to_rosinality(generator: StyleGAN2) -> dict[str, Tensor]:
    """The state dict that rosinality's Generator loads strictly; w_avg becomes `latent_avg` beside it."""
    tensors = generator.state_dict()
    state = {}
    for key, name in generator_keys(generator.resolution, generator.mapping.num_layers).items():
        value = tensors[name].detach().clone()
        is_rgb_bias = key.startswith("to_rgb") and key.endswith("bias") and "modulation" not in key
        state[key] = value[None, :, None, None] if is_rgb_bias else value[(None,) * _leading_axes(key)]
    for j in range(len(generator.channels) - 1):
        state[f"convs.{2 * j}.conv.blur.kernel"] = _kernel() * 4
        state[f"to_rgbs.{j}.upsample.kernel"] = _kernel() * 4
    return state


def discriminator_from_rosinality(state: State, conv_clamp: float | None = None) -> Discriminator:
    """Raises WeightsError if the tensors form no discriminator."""
    blocks = sum(re.fullmatch(r"convs\.\d+\.skip\.1\.weight", key) is not None for key in state)
    if not 1 <= blocks <= 8 or "final_conv.0.weight" not in state or "convs.0.0.weight" not in state:
        raise WeightsError(
            "These tensors are not a rosinality StyleGAN2 discriminator (no convs.*.skip or final_conv)."
        )
    return Discriminator.from_state_dict(_rename(state, discriminator_keys(2 ** (blocks + 2))), conv_clamp)


def discriminator_to_rosinality(discriminator: Discriminator) -> dict[str, Tensor]:
    """The state dict that rosinality's Discriminator loads strictly."""
    tensors = discriminator.state_dict()
    keys = discriminator_keys(discriminator.resolution)
    state = {key: tensors[name].detach().clone() for key, name in keys.items()}
    for k in range(1, len(discriminator.sizes) + 1):
        state[f"convs.{k}.conv2.0.kernel"] = _kernel()
        state[f"convs.{k}.skip.0.kernel"] = _kernel()
    return state


def _rename(state: State, names: dict[str, str]) -> dict[str, Tensor]:
    """Our tensors. A tensor of an unexpected shape keeps it, and `from_state_dict` refuses it."""
    tensors = {}
    for key, name in names.items():
        if key not in state:
            raise WeightsError(f"These tensors do not form a StyleGAN2 network: {key} is missing.")
        value, extra = state[key], (1,) * _leading_axes(key)
        value = value[(0,) * len(extra)] if value.shape[: len(extra)] == extra else value
        tensors[name] = value.reshape(-1) if key.endswith("bias") else value
    return tensors


def _leading_axes(key: str) -> int:
    """How many axes of length 1 rosinality's tensor has in front of ours."""
    if key.startswith("noises."):
        return 2
    return int(key == "input.input" or key.endswith((".conv.weight", ".noise.weight")))


def _kernel() -> Tensor:
    return fir(torch.zeros(1, 1))[0, 0].clone()
