"""The StyleGAN2 generator: z -> w -> W+ -> image, at any power of two and with any channel table.

Shapes: N images, L rows of W+, D latent width, C channels, H = W = resolution. Row 0 drives the first convolution.
The block of size 2^(k+2) reads rows 2k-1 and 2k for its convolutions and row 2k+1 for its RGB layer; that row is also
the first one of the next block.
"""

import re
from collections.abc import Mapping as MappingType
from typing import Any

import torch
from torch import Tensor, nn

from stylegan2.networks.layers import Mapping, SynthesisLayer, ToRGB
from stylegan2.networks.ops import full_precision, half_precision, run_block, upsample2
from stylegan2.protocol import NoiseMode, Start
from stylegan2.weights import WeightsError, assemble

Channels = MappingType[int, int] | MappingType[str, int]


def sizes(resolution: int) -> list[int]:
    """[4, 8, ..., resolution]; ValueError unless the resolution is a power of two from 8 to 1024."""
    if resolution not in (8, 16, 32, 64, 128, 256, 512, 1024):
        raise ValueError(f"resolution must be a power of two from 8 to 1024, got {resolution}")
    return [2**k for k in range(2, resolution.bit_length())]


def channel_table(resolution: int, channels: Channels | None = None) -> dict[int, int]:
    """Channels at each size from 4 up: `channels` checked, with integer keys (JSON has strings), or by default config F."""
    if channels is None:
        return {size: min(32768 // size, 512) for size in sizes(resolution)}
    table = {int(size): int(count) for size, count in channels.items()}
    if sorted(table) != sizes(resolution) or min(table.values()) < 1:
        raise ValueError(
            f"channels must name the sizes {sizes(resolution)} with at least one channel, got {table}"
        )
    return dict(sorted(table.items()))


class Block(nn.Module):
    """The layers of one resolution: convolutions and the RGB skip connection. The 4 px block starts from a constant."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int, clamp: float | None) -> None:
        super().__init__()
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(outputs, 4, 4))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, up=True, clamp=clamp)
        self.first = resolution == 4
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, clamp=clamp)
        self.torgb = ToRGB(outputs, w_dim, clamp=clamp)

    def forward(
        self, x: Tensor | None, image: Tensor | None, w_NLD: Tensor, noise: NoiseMode
    ) -> tuple[Tensor, Tensor]:
        """w_NLD holds this block's rows: two for the first block, three for the others."""
        if x is None or image is None:
            start = self.const.expand(w_NLD.shape[0], -1, -1, -1)
            if (
                start.device.type != "cuda"
            ):  # convolutions preserve this memory layout, which is up to twice as fast on a CPU
                start = start.contiguous(memory_format=torch.channels_last)
            features: Tensor = self.conv1(start, w_NLD[:, 0], noise)
            return features, self.torgb(features, w_NLD[:, 1])
        features = self.conv0(x, w_NLD[:, 0], noise)
        features = self.conv1(features, w_NLD[:, 1], noise)
        with full_precision(image):
            image = upsample2(image)
        return features, image + self.torgb(features, w_NLD[:, 2])


class Synthesis(nn.Module):
    """g: W+ -> image (N, 3, H, W) in about [-1, 1]."""

    half: torch.dtype | None = None  # dtype of the convolutions; None: that of the weights
    recompute = False  # whether the activations of a block are recomputed for the gradient instead of stored

    def __init__(self, resolution: int, channels: dict[int, int], w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.sizes, self.w_dim = sizes(resolution), w_dim
        self.num_rows = 2 * len(self.sizes)
        for size in self.sizes:
            inputs = 0 if size == 4 else channels[size // 2]
            self.add_module(f"b{size}", Block(inputs, channels[size], w_dim, size, clamp))

    def forward(self, w_NLD: Tensor, noise: NoiseMode = "const", start: Start | None = None) -> Tensor:
        """start: the result of the first blocks for these latents, if it was already computed (by `start`)."""
        if w_NLD.ndim != 3 or tuple(w_NLD.shape[1:]) != (self.num_rows, self.w_dim):
            raise ValueError(
                f"expected W+ latents (N, {self.num_rows}, {self.w_dim}), got {tuple(w_NLD.shape)}"
            )
        start = start or Start(0, None)
        x, image = start.repeated(len(w_NLD))
        with half_precision(w_NLD, self.half):
            _, image = self._blocks(x, image, w_NLD, noise, range(start.blocks, len(self.sizes)))
        assert image is not None  # the 4 px block always outputs an image
        return image

    @torch.no_grad()
    def start(self, w_LD: Tensor, rows: int) -> Start:
        """The result of those blocks that read only the first `rows` rows of w_LD, with constant noise."""
        blocks = rows // 2  # block k reads rows up to 2 k + 1
        with half_precision(w_LD, self.half):
            return Start(blocks, *self._blocks(None, None, w_LD[None], "const", range(blocks)))

    def _blocks(
        self, x: Tensor | None, image: Tensor | None, w_NLD: Tensor, noise: NoiseMode, blocks: range
    ) -> tuple[Tensor | None, Tensor | None]:
        for k in blocks:
            rows = w_NLD[:, max(2 * k - 1, 0) : 2 * k + 2]
            x, image = run_block(
                self.get_submodule(f"b{self.sizes[k]}"), self.recompute, x, image, rows, noise
            )
        return x, image


class StyleGAN2(nn.Module):
    """Karras et al. 2020, config F (skip generator). Implements `stylegan2.protocol.Generator`.

    channels: size -> channels for every power of two from 4 to the resolution (default config F).
    conv_clamp: bound of the absolute values of activations and RGB (256 in NVIDIA's mixed-precision training).
    """

    def __init__(
        self,
        resolution: int,
        z_dim: int = 512,
        w_dim: int = 512,
        channels: Channels | None = None,
        mapping_layers: int = 8,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.z_dim, self.w_dim = resolution, z_dim, w_dim
        self.channels = channel_table(resolution, channels)
        self.conv_clamp = conv_clamp
        self.mapping = Mapping(z_dim, w_dim, mapping_layers)
        self.synthesis = Synthesis(resolution, self.channels, w_dim, conv_clamp)
        self.num_rows = self.synthesis.num_rows

    @property
    def w_avg(self) -> Tensor:
        """Mean of W, (D,)."""
        return self.mapping.w_avg

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's keyword arguments, in types that JSON can hold."""
        return {
            "resolution": self.resolution,
            "z_dim": self.z_dim,
            "w_dim": self.w_dim,
            "channels": {str(size): count for size, count in self.channels.items()},
            "mapping_layers": self.mapping.num_layers,
            "conv_clamp": self.conv_clamp,
        }

    def start(self, w_LD: Tensor, rows: int) -> Start:
        """The result of those blocks that read only the first `rows` rows, for `synthesis(..., start=)`."""
        return self.synthesis.start(w_LD, rows)

    def compute_in(self, half: torch.dtype | None) -> None:
        """Computes synthesis in half precision, with float32 weights and images; None: in float32."""
        self.synthesis.half = half

    def checkpoint_activations(self, on: bool) -> None:
        """Gradient checkpointing (Chen et al. 2016): stores one block's activations, at the cost of a second forward."""
        self.synthesis.recompute = on

    @classmethod
    def from_state_dict(cls, state: MappingType[str, Tensor], conv_clamp: float | None = None) -> "StyleGAN2":
        """Rebuilds the network from tensors, whose shapes give all sizes. Raises WeightsError if they form none.

        conv_clamp cannot be read from tensors. FIR filters are ignored (they are fixed); a missing w_avg is estimated.
        """
        state = {key: value for key, value in state.items() if not key.endswith("resample_filter")}
        pattern = r"synthesis\.b(\d+)\.conv1\.weight"
        blocks = {int(match[1]): key for key in state if (match := re.fullmatch(pattern, key))}
        layers = sum(re.fullmatch(r"mapping\.fc\d+\.weight", key) is not None for key in state)
        if not blocks or "mapping.fc0.weight" not in state or "synthesis.b4.conv1.affine.weight" not in state:
            raise WeightsError(
                "These tensors are not a StyleGAN2 generator (no mapping.fc0 or synthesis.b4.conv1)."
            )
        has_w_avg = "mapping.w_avg" in state
        w_dim = state["synthesis.b4.conv1.affine.weight"].shape[-1:].numel()
        generator = assemble(
            lambda: cls(
                resolution=max(blocks),
                z_dim=state["mapping.fc0.weight"].shape[-1],
                w_dim=w_dim,
                channels={size: state[key].shape[0] for size, key in blocks.items()},
                mapping_layers=layers,
                conv_clamp=conv_clamp,
            ),
            state if has_w_avg else {**state, "mapping.w_avg": torch.zeros(1).expand(w_dim)},
            "StyleGAN2 generator",
        )
        if not has_w_avg:
            generator.mapping.estimate_w_avg()
        return generator
