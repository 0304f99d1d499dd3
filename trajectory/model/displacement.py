"""What stage 1 predicts: the displacement of W+ from the identity latent, seen through two frozen projections.

    d_t = w_t - w_ref        V(w_ref): identity latent -> P numbers        d_t <-> C coefficients

Shapes: N clips, T frames, L rows of W+, D = 512, P identity dimensions, C coefficients of the offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from encoders.bases.offset_pca import OffsetBasis, fit_pca


class TrajectoryError(ValueError):
    """A mistake of the user in stage 1: no clips to train on, a checkpoint of another model, and so on."""


@dataclass
class DisplacementConfig:
    """components: principal components of the offsets that the decoder fills (None: the raw L x D offset).
    identity_dims: P, dimensions of V. rows: [start, stop) of the W+ rows that may move (None: all).
    max_samples: frames that the bases are fitted on, at most (evenly spaced; memory is samples x L x D x 8 B).
    reference: the identity frame, whose code is w_ref: "neutral" (narrowest lips of the clip's usual width), "first", or
    "random" (drawn with reference_seed and the clip's name). All are frames in which a face was found, if there is one.
    The paper leaves V unexplained; MoCoGAN-HD's PCA of W and AudioStyleNet's PCA of offsets are the nearest kin.
    """

    components: int | None = 32
    identity_dims: int = 64
    rows: list[int] | None = None
    max_samples: int = 3000
    reference: Literal["neutral", "first", "random"] = "neutral"
    reference_seed: int = 0

    def __post_init__(self) -> None:
        if self.components is not None and self.components < 1:
            raise ValueError(f"components must be at least 1 or null, got {self.components}")
        if self.identity_dims < 1 or self.max_samples < 2:
            raise ValueError("identity_dims must be at least 1 and max_samples at least 2")
        if self.rows is not None and not (len(self.rows) == 2 and 0 <= self.rows[0] < self.rows[1]):
            raise ValueError(f"rows must be [start, stop] with 0 <= start < stop, got {self.rows}")
        if self.reference not in ("neutral", "first", "random"):
            raise ValueError(f"reference is {self.reference!r}; it must be 'neutral', 'first' or 'random'")


class DisplacementSpace(nn.Module):
    """Both frozen projections as buffers, so that they travel with the checkpoint.

    All tensors are fitted on the training split alone. Outside `rows` a decoded displacement is exactly 0.
    """

    identity_mean: Tensor  # (F,) with F = L * D
    identity_axes: Tensor  # (P, F)
    identity_scale: Tensor  # (P,)
    offset_mean: Tensor  # (R * D,) with R = rows that may move
    offset_axes: Tensor  # (C, R * D), or (0, R * D) without a projection
    offset_scale: Tensor  # (C,), or (1,) without a projection

    def __init__(
        self,
        num_rows: int,
        w_dim: int,
        rows: tuple[int, int],
        identity: OffsetBasis | tuple[int, int],
        offset: OffsetBasis | tuple[int, int],
    ) -> None:
        """A basis fills the buffers; (number of axes, length of an axis) reserves room for load_state_dict."""
        super().__init__()
        if not 0 <= rows[0] < rows[1] <= num_rows:
            raise TrajectoryError(f"rows {list(rows)} are outside the latent's {num_rows} rows")
        self.num_rows, self.w_dim, self.rows = num_rows, w_dim, rows
        for name, basis in (("identity", identity), ("offset", offset)):
            if isinstance(basis, OffsetBasis):
                mean, axes = basis.mean.reshape(-1), basis.components.reshape(-1, basis.mean.size)
                scale = basis.scale
            else:
                count, width = basis
                mean, axes, scale = np.zeros(width), np.zeros((count, width)), np.ones(max(count, 1))
            self.register_buffer(f"{name}_mean", torch.tensor(mean, dtype=torch.float32))
            self.register_buffer(f"{name}_axes", torch.tensor(axes, dtype=torch.float32))
            self.register_buffer(f"{name}_scale", torch.tensor(scale, dtype=torch.float32))

    @property
    def identity_dims(self) -> int:
        return len(self.identity_axes)

    @property
    def num_coefficients(self) -> int:
        return len(self.offset_axes) or self.offset_mean.numel()

    def layout(self) -> dict:
        """Plain numbers from which `from_layout` rebuilds an empty space of this shape."""
        return {
            "num_rows": self.num_rows,
            "w_dim": self.w_dim,
            "rows": list(self.rows),
            "identity": list(self.identity_axes.shape),
            "offset": list(self.offset_axes.shape),
        }

    @classmethod
    def from_layout(cls, layout: dict) -> DisplacementSpace:
        rows, identity, offset = (tuple(layout[k]) for k in ("rows", "identity", "offset"))
        return cls(layout["num_rows"], layout["w_dim"], rows, identity, offset)

    def identity(self, w_ref_NLD: Tensor) -> Tensor:
        """V: identity latents (N, L, D) -> (N, P), unit variance on the fitted samples."""
        flat = w_ref_NLD.flatten(-2) - self.identity_mean
        return flat @ self.identity_axes.T / self.identity_scale

    def encode(self, d_NTLD: Tensor) -> Tensor:
        """Displacements (..., L, D) -> standardised coefficients (..., C)."""
        flat = d_NTLD[..., self.rows[0] : self.rows[1], :].flatten(-2) - self.offset_mean
        if len(self.offset_axes):
            flat = flat @ self.offset_axes.T
        return flat / self.offset_scale

    def decode(self, c_NTC: Tensor) -> Tensor:
        """Standardised coefficients (..., C) -> displacements (..., L, D)."""
        flat = c_NTC * self.offset_scale
        if len(self.offset_axes):
            flat = flat @ self.offset_axes
        moved = (flat + self.offset_mean).unflatten(-1, (-1, self.w_dim))
        return nn.functional.pad(moved, (0, 0, self.rows[0], self.num_rows - self.rows[1]))


def fit_space(d_NLD: np.ndarray, identities_NLD: np.ndarray, config: DisplacementConfig) -> DisplacementSpace:
    """Both projections, from offsets of the training split and from identity latents.

    identities: best a thousand samples of the generator's W (`stylegan2.protocol.sample_w`): a handful of
    training speakers spans only as many directions. Raises TrajectoryError if the offsets never move.
    """
    num, num_rows, w_dim = d_NLD.shape
    rows = (config.rows[0], config.rows[1]) if config.rows is not None else (0, num_rows)
    moving = d_NLD[:, rows[0] : rows[1]]
    try:
        identity = fit_pca(identities_NLD, config.identity_dims)
        if config.components is None:
            # One scale for all: per-entry scales would blow up the rows that carry only the encoder's noise.
            scale = np.array([max(float(moving.std()), 1e-8)], np.float32)
            offset = OffsetBasis(moving.mean(0), np.zeros((0, *moving.shape[1:]), np.float32), scale)
        else:
            offset = fit_pca(moving, config.components)
    except ValueError as error:
        raise TrajectoryError(
            f"cannot fit the frozen projections on {num} training frames: {error}"
        ) from error
    return DisplacementSpace(num_rows, w_dim, rows, identity, offset)
