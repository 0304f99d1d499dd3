"""Speech windows + identity -> displacement coefficients: an audio front end, a GRU or LSTM over frames, a decoder.

Shapes: N clips, T video frames, K feature rows in a window, M bins in a row, P identity dimensions,
C coefficients, E width of one frame's audio code, H width of the recurrent net's output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trajectory.model.audio_frontends import Frontend, build_frontend

State = Tensor | tuple[Tensor, Tensor] | None  # state of a GRU or an LSTM; None at the beginning of a clip


@dataclass
class TrajectoryConfig:
    """Sizes of the network of stage 1 and how it is regularised."""

    # "compact" (ours, strided, 0.2 M parameters), "atvgnet" (the paper's), "dense" (for audio.kind=encoder)
    frontend: Frontend = "compact"
    # Channels of the compact front end's second layer; the dense one projects rows to 4 times as many
    channels: int = 16
    audio_dim: int = 128  # E; the paper: 256
    cell: Literal["gru", "lstm"] = "gru"  # "lstm" is the paper's; the GRU does better (docs/RESULTS.md)
    hidden: int = 128  # units of the recurrent net in each direction; the paper: 256
    layers: int = 1  # of the recurrent net; the paper: 3
    bidirectional: bool = True  # must be false for frame-by-frame prediction (predictor.stream)
    # How V(w_ref) enters: "concat" to the decoder's input (the paper's), or "none".
    identity: Literal["concat", "none"] = "concat"
    decoder: int = 256  # width of the decoder's hidden layers
    # Dropout of audio codes, recurrent outputs and decoder layers (ours; the paper states none)
    dropout: float = 0.2
    # Probability that V(w_ref) of a training clip is set to zero, which avoids overfitting to the few training
    # speakers.
    identity_dropout: float = 0.5

    def __post_init__(self) -> None:
        if min(self.channels, self.audio_dim, self.hidden, self.layers, self.decoder) < 1:
            raise ValueError("trajectory.channels, audio_dim, hidden, layers and decoder must be at least 1")
        if not (0 <= self.dropout < 1 and 0 <= self.identity_dropout <= 1):
            raise ValueError("trajectory.dropout must lie in [0, 1) and identity_dropout in [0, 1]")


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
        self.frontend = build_frontend(
            config.frontend, window, config.channels, config.audio_dim, config.dropout
        )
        self.recurrent = {"gru": nn.GRU, "lstm": nn.LSTM}[config.cell](
            config.audio_dim,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=config.bidirectional,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        width = config.hidden * (2 if config.bidirectional else 1)
        width += identity_dims if config.identity == "concat" else 0
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
        """Returns the coefficients and the recurrent state after the last frame.

        A unidirectional net gives the same result for a clip in pieces, each started from the previous state, as for
        the whole clip.
        """
        audio_NTE = self.encode_audio(values_NTKM)
        hidden_NTH, state = self.recurrent(self.dropout(audio_NTE), state)
        return self.decoder(self.with_identity(hidden_NTH, identity_NP)), state

    def encode_audio(self, values_NTKM: Tensor) -> Tensor:
        """Each window by itself: (N, T, K, M) -> (N, T, E)."""
        return self.frontend(values_NTKM.flatten(0, 1)[:, None]).unflatten(0, values_NTKM.shape[:2])

    def with_identity(self, hidden_NTH: Tensor, identity_NP: Tensor) -> Tensor:
        """The decoder's input: V(w_ref) appended to every frame; training sets it to zero in a random share of clips."""
        if self.config.identity == "none":
            return self.dropout(hidden_NTH)
        if self.training and self.config.identity_dropout:
            keep_N1 = (
                torch.rand(len(identity_NP), 1, device=identity_NP.device) >= self.config.identity_dropout
            )
            identity_NP = identity_NP * keep_N1
        identity_NTP = identity_NP[:, None].expand(-1, hidden_NTH.shape[1], -1)
        return torch.cat([self.dropout(hidden_NTH), identity_NTP], dim=-1)
