"""Speech windows + identity -> displacement coefficients: a CNN per window, a recurrent net over frames, 3 dense layers.

Shapes: N clips, T video frames, K feature rows in a window, M bins in a row, P identity dimensions,
C coefficients, E width of one frame's audio code, H width of the recurrent state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

State = Tensor | tuple[Tensor, Tensor] | None  # what the recurrent net carries from chunk to chunk


@dataclass
class TrajectoryConfig:
    """frontend: "compact" (strided, 0.2 M parameters) or "atvgnet" (the paper's: 3 x 3 convolutions to 512 channels).
    cell, hidden, layers, bidirectional: the recurrent net (a streaming model needs bidirectional=false).
    audio_dim: E, the code of one window. decoder: width of the 3 dense layers.
    dropout: on codes, recurrent outputs and dense layers. identity_dropout: chance that a training clip's V(w_ref)
    is replaced by zeros, without which a few speakers are learnt by heart.
    """

    frontend: Literal["compact", "atvgnet"] = "compact"
    channels: int = 16
    audio_dim: int = 128
    cell: Literal["gru", "lstm"] = "gru"
    hidden: int = 128
    layers: int = 1
    bidirectional: bool = True
    decoder: int = 256
    dropout: float = 0.2
    identity_dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.frontend not in ("compact", "atvgnet"):
            raise ValueError(f"trajectory.frontend is {self.frontend!r}; it must be 'compact' or 'atvgnet'")
        if self.cell not in ("gru", "lstm"):
            raise ValueError(f"trajectory.cell is {self.cell!r}; it must be 'gru' or 'lstm'")
        if min(self.channels, self.audio_dim, self.hidden, self.layers, self.decoder) < 1:
            raise ValueError("trajectory.channels, audio_dim, hidden, layers and decoder must be at least 1")
        if not (0 <= self.dropout < 1 and 0 <= self.identity_dropout <= 1):
            raise ValueError("trajectory.dropout must lie in [0, 1) and identity_dropout in [0, 1]")


class CompactFrontend(nn.Sequential):
    """Window (N, 1, K, M) -> code (N, E) with strided convolutions: about 1.5 M multiplications a frame."""

    def __init__(self, window: tuple[int, int], channels: int, dim: int, dropout: float) -> None:
        def block(c_in: int, c_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> list[nn.Module]:
            pad = (kernel[0] // 2, kernel[1] // 2)
            return [nn.Conv2d(c_in, c_out, kernel, stride, pad), nn.GroupNorm(1, c_out), nn.SiLU()]

        c = channels
        # A row of a dozen cepstra is not a picture of formants: it keeps its width.
        wide = (2, 4) if window[1] >= 40 else (2, 1)
        layers = [
            *block(1, c // 2, (3, 7), wide),
            *block(c // 2, c, (3, 5), (2, 2)),
            *block(c, 2 * c, (3, 3), (2, 2)),
        ]
        flat = _flat_size(nn.Sequential(*layers), window)
        super().__init__(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(flat, dim), nn.SiLU())


class AtvgnetFrontend(nn.Sequential):
    """Window (N, 1, K, M) -> code (N, E): conv 1-64-128, pool, conv 128-256-256-512, pool, dense 2048, dense E."""

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


class TrajectoryNet(nn.Module):
    """E_A and D of the paper: windows (N, T, K, M), identities V(w_ref) (N, P) -> coefficients (N, T, C).

    window: (K, M). The coefficients are standardised ones of `DisplacementSpace`; the last layer starts at
    zero, so an untrained net predicts the mean displacement.
    """

    def __init__(
        self, config: TrajectoryConfig, window: tuple[int, int], identity_dims: int, num_coefficients: int
    ) -> None:
        super().__init__()
        self.config = config
        if config.frontend == "atvgnet":
            self.frontend: nn.Module = AtvgnetFrontend(window, config.audio_dim)
        else:
            self.frontend = CompactFrontend(window, config.channels, config.audio_dim, config.dropout)
        cell = nn.GRU if config.cell == "gru" else nn.LSTM
        self.recurrent = cell(
            config.audio_dim,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=config.bidirectional,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        width = config.hidden * (2 if config.bidirectional else 1) + identity_dims
        last = nn.Linear(config.decoder, num_coefficients)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.decoder = nn.Sequential(
            nn.Linear(width, config.decoder),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.decoder, config.decoder),
            nn.SiLU(),
            last,
        )

    def forward(self, values_NTKM: Tensor, identity_NP: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Returns the coefficients and the recurrent state to hand to the next chunk (one direction only)."""
        audio_NTE = self.encode_audio(values_NTKM)
        hidden_NTH, state = self.recurrent(self.dropout(audio_NTE), state)
        identity_NTP = self.drop_identity(identity_NP)[:, None].expand(-1, hidden_NTH.shape[1], -1)
        coefficients_NTC = self.decoder(torch.cat([self.dropout(hidden_NTH), identity_NTP], dim=-1))
        return coefficients_NTC, state

    def encode_audio(self, values_NTKM: Tensor) -> Tensor:
        """Each window on its own: (N, T, K, M) -> (N, T, E)."""
        return self.frontend(values_NTKM.flatten(0, 1)[:, None]).unflatten(0, values_NTKM.shape[:2])

    def drop_identity(self, identity_NP: Tensor) -> Tensor:
        if not self.training or self.config.identity_dropout == 0:
            return identity_NP
        keep_N1 = torch.rand(len(identity_NP), 1, device=identity_NP.device) >= self.config.identity_dropout
        return identity_NP * keep_N1


def _flat_size(layers: nn.Module, window: tuple[int, int]) -> int:
    """Numbers that a window becomes after `layers`; a window too small for them is refused."""
    try:
        with torch.no_grad():
            return layers.eval()(torch.zeros(1, 1, *window)).numel()
    except RuntimeError as error:
        raise ValueError(
            f"a window of {window[0]} rows x {window[1]} bins is too small for this frontend"
        ) from error
    finally:
        layers.train()
