"""Speech windows + identity -> displacement coefficients: a CNN per window, a net over frames, 3 dense layers.

Shapes: N clips, T video frames, K feature rows in a window, M bins in a row, P identity dimensions,
C coefficients, E width of one frame's audio code, H width of the net over frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trajectory.model.displacement import TrajectoryError
from trajectory.temporal import State, TemporalConvolution, Transformer


@dataclass
class TrajectoryConfig:
    """frontend: "compact" (strided, 0.2 M parameters), "atvgnet" (the paper's: 3 x 3 convolutions to 512 channels) or
    "dense" (one linear layer for every row, for features whose neighbours are no neighbours in pitch: audio.kind=encoder).
    cell, hidden, layers, bidirectional: the net over frames (a streaming model needs bidirectional=false).
    "gru", "lstm" (the paper's), "conv" (dilated, `kernel` taps) or "transformer" (`heads`; a frame sees those at most
    `context` - 1 away, None = the whole clip, which cannot stream).
    identity: how V(w_ref) comes in: "concat" (to the decoder's input, the paper's), "film" (it scales and shifts what
    the net over frames says) or "none".
    audio_dim: E, the code of one window. decoder: width of the 3 dense layers.
    dropout: on codes, outputs of the net over frames and dense layers. identity_dropout: chance that a training clip's V(w_ref)
    is replaced by zeros, without which a few speakers are learnt by heart.
    """

    frontend: Literal["compact", "atvgnet", "dense"] = "compact"
    channels: int = 16
    audio_dim: int = 128
    cell: Literal["gru", "lstm", "conv", "transformer"] = "gru"
    hidden: int = 128
    layers: int = 1
    bidirectional: bool = True
    kernel: int = 3
    heads: int = 4
    context: int | None = 24
    identity: Literal["concat", "film", "none"] = "concat"
    decoder: int = 256
    dropout: float = 0.2
    identity_dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.frontend not in ("compact", "atvgnet", "dense"):
            raise ValueError(
                f"trajectory.frontend is {self.frontend!r}; it must be 'compact', 'atvgnet' or 'dense'"
            )
        if self.cell not in ("gru", "lstm", "conv", "transformer"):
            raise ValueError(
                f"trajectory.cell is {self.cell!r}; it must be 'gru', 'lstm', 'conv' or 'transformer'"
            )
        if self.cell == "conv" and (self.kernel < 2 or (self.bidirectional and self.kernel % 2 == 0)):
            raise ValueError(
                f"trajectory.kernel is {self.kernel}; it must be at least 2, and odd where bidirectional=true"
            )
        if self.cell == "transformer":
            self._check_transformer()
        if self.identity not in ("concat", "film", "none"):
            raise ValueError(
                f"trajectory.identity is {self.identity!r}; it must be 'concat', 'film' or 'none'"
            )
        if min(self.channels, self.audio_dim, self.hidden, self.layers, self.decoder) < 1:
            raise ValueError("trajectory.channels, audio_dim, hidden, layers and decoder must be at least 1")
        if not (0 <= self.dropout < 1 and 0 <= self.identity_dropout <= 1):
            raise ValueError("trajectory.dropout must lie in [0, 1) and identity_dropout in [0, 1]")

    def _check_transformer(self) -> None:
        if self.heads < 1 or self.hidden % self.heads:
            raise ValueError(f"trajectory.heads is {self.heads}; it must divide hidden={self.hidden}")
        if self.context is None and not self.bidirectional:
            raise ValueError(
                "trajectory.context=null sees the whole clip; one direction needs a number of frames, so give one or "
                "set bidirectional=true"
            )
        if self.context is not None and self.context < 1:
            raise ValueError(f"trajectory.context is {self.context}; it must be at least 1 frame, or null")


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


class DenseFrontend(nn.Sequential):
    """Window (N, 1, K, M) -> code (N, E): each row of M normalised and narrowed to 4 `channels`, then one dense layer."""

    def __init__(self, window: tuple[int, int], channels: int, dim: int, dropout: float) -> None:
        rows, width = window
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, 4 * channels), nn.SiLU(), nn.Flatten(), nn.Dropout(dropout),
            nn.Linear(rows * 4 * channels, dim), nn.SiLU(),
        )  # fmt: skip


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
            kind = DenseFrontend if config.frontend == "dense" else CompactFrontend
            self.frontend = kind(window, config.channels, config.audio_dim, config.dropout)
        self.recurrent, hidden = over_frames(config)
        self.dropout = nn.Dropout(config.dropout)
        width = hidden + (identity_dims if config.identity == "concat" else 0)
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
        self.film = None
        if config.identity == "film":
            self.film = nn.Linear(identity_dims, 2 * hidden)
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, values_NTKM: Tensor, identity_NP: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Returns the coefficients and the state to hand to the next chunk (one direction only)."""
        audio_NTE = self.encode_audio(values_NTKM)
        hidden_NTH, state = self.recurrent(self.dropout(audio_NTE), state)
        return self.decoder(self.with_identity(hidden_NTH, identity_NP)), state

    def encode_audio(self, values_NTKM: Tensor) -> Tensor:
        """Each window on its own: (N, T, K, M) -> (N, T, E)."""
        return self.frontend(values_NTKM.flatten(0, 1)[:, None]).unflatten(0, values_NTKM.shape[:2])

    def with_identity(self, hidden_NTH: Tensor, identity_NP: Tensor) -> Tensor:
        """The decoder's input. FiLM (Perez et al. 2018): h' = h (1 + a) + b with (a, b) linear in V, 0 at first."""
        if self.config.identity == "none":
            return self.dropout(hidden_NTH)
        identity_N1P = self.drop_identity(identity_NP)[:, None]
        if self.film is not None:
            scale, shift = self.film(identity_N1P).chunk(2, dim=-1)
            return self.dropout(hidden_NTH * (1 + scale) + shift)
        identity_NTP = identity_N1P.expand(-1, hidden_NTH.shape[1], -1)
        return torch.cat([self.dropout(hidden_NTH), identity_NTP], dim=-1)

    def drop_identity(self, identity_NP: Tensor) -> Tensor:
        if not self.training or self.config.identity_dropout == 0:
            return identity_NP
        keep_N1 = torch.rand(len(identity_NP), 1, device=identity_NP.device) >= self.config.identity_dropout
        return identity_NP * keep_N1


def over_frames(config: TrajectoryConfig) -> tuple[nn.Module, int]:
    """The net over frames, (N, T, E) and a state -> (N, T, H) and a state; and H."""
    sizes, both = (config.audio_dim, config.hidden, config.layers), config.bidirectional
    if config.cell == "conv":
        return TemporalConvolution(*sizes, config.kernel, both, config.dropout), config.hidden
    if config.cell == "transformer":
        net = Transformer(*sizes, config.heads, config.context, both, config.dropout)
        return net, config.hidden
    cell = nn.GRU if config.cell == "gru" else nn.LSTM
    dropout = config.dropout if config.layers > 1 else 0.0
    net = cell(*sizes, batch_first=True, bidirectional=both, dropout=dropout)
    return net, config.hidden * (2 if both else 1)


def _flat_size(layers: nn.Module, window: tuple[int, int]) -> int:
    """Numbers that a window becomes after `layers`; a window too small for them is refused."""
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
