"""Audio front ends: the network that turns one window of speech features into one code, E_A of the paper.

Shapes: N windows, K feature rows in a window, M bins in a row, E width of the code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from trajectory.model.displacement import TrajectoryError

Frontend = Literal["compact", "atvgnet", "dense"]


class CompactFrontend(nn.Sequential):
    """Window (N, 1, K, M) -> code (N, E) with strided convolutions: about 1.5 M multiplications a frame."""

    def __init__(self, window: tuple[int, int], channels: int, dim: int, dropout: float) -> None:
        def block(c_in: int, c_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> list[nn.Module]:
            pad = (kernel[0] // 2, kernel[1] // 2)
            return [nn.Conv2d(c_in, c_out, kernel, stride, pad), nn.GroupNorm(1, c_out), nn.SiLU()]

        c = channels
        # The first layer has stride 4 over the bins of a spectrum, but stride 1 over a dozen cepstral coefficients.
        first_stride = (2, 4) if window[1] >= 40 else (2, 1)
        layers = [
            *block(1, c // 2, (3, 7), first_stride),
            *block(c // 2, c, (3, 5), (2, 2)),
            *block(c, 2 * c, (3, 3), (2, 2)),
        ]
        flat = _flat_size(nn.Sequential(*layers), window)
        super().__init__(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(flat, dim), nn.SiLU())


class AtvgnetFrontend(nn.Sequential):
    """Window (N, 1, K, M) -> code (N, E): conv 1-64-128, pool, conv 128-256-256-512, pool, dense 2048, dense E.

    The audio encoder of ATVGnet (Chen et al. 2019), which the paper uses.
    """

    def __init__(self, window: tuple[int, int], dim: int) -> None:
        def block(c_in: int, c_out: int) -> list[nn.Module]:
            return [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()]

        layers = [*block(1, 64), *block(64, 128), nn.MaxPool2d(3, (1, 2))]
        layers += [
            *block(128, 256),
            *block(256, 256),
            *block(256, 512),
            nn.MaxPool2d(3, (2, 2)),
            nn.Flatten(),
        ]
        flat = _flat_size(nn.Sequential(*layers), window)
        super().__init__(*layers, nn.Linear(flat, 2048), nn.ReLU(), nn.Linear(2048, dim), nn.ReLU())


class DenseFrontend(nn.Sequential):
    """Window (N, 1, K, M) -> code (N, E): each row normalised and projected to 4 `channels`, then one dense layer.

    For the hidden states of a speech encoder, whose M dimensions have no order that a convolution could use.
    """

    def __init__(self, window: tuple[int, int], channels: int, dim: int, dropout: float) -> None:
        rows, width = window
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, 4 * channels), nn.SiLU(), nn.Flatten(), nn.Dropout(dropout),
            nn.Linear(rows * 4 * channels, dim), nn.SiLU(),
        )  # fmt: skip


def build_frontend(
    kind: Frontend, window: tuple[int, int], channels: int, dim: int, dropout: float
) -> nn.Module:
    """window: (K, M). TrajectoryError for a window that is too small for the front end's strides."""
    if kind == "atvgnet":
        return AtvgnetFrontend(window, dim)
    return (DenseFrontend if kind == "dense" else CompactFrontend)(window, channels, dim, dropout)


def _flat_size(layers: nn.Module, window: tuple[int, int]) -> int:
    """Number of output values of `layers` for one window."""
    try:
        with torch.no_grad():
            return layers.eval()(torch.zeros(1, 1, *window)).numel()
    except RuntimeError as error:
        raise TrajectoryError(
            f"a window of {window[0]} rows x {window[1]} bins is too small for this trajectory.frontend: raise "
            "audio.context_ms"
        ) from error
    finally:
        layers.train()
