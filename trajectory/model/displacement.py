"""The displacement of W+ that stage 1 predicts, and the two frozen linear projections around it.

    d_t = w_t - w_ref                      displacement of frame t from the identity latent
    V(w_ref) = (w_ref - mean) A^T / scale  identity projection: the latent as P numbers, input of the net
    d_t = (c_t * scale) B + mean           offset projection: C coefficients, output of the net

A and B are principal components, fitted once before training and stored in the checkpoint.
Shapes: N clips, T frames, L rows of W+, D = 512, P identity dimensions, C coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from encoders.bases.offset_pca import fit_pca


class TrajectoryError(ValueError):
    """A user error in stage 1, such as no training clips or a checkpoint of another model."""


@dataclass
class DisplacementConfig:
    """The two projections and the choice of the identity frame.

    The paper does not define V; the closest published choices are the PCA of W in MoCoGAN-HD and the PCA of offsets in
    AudioStyleNet.
    """

    components: int = 32  # C, principal components of the displacements
    identity_dims: int = 64  # P, principal components of identity latents
    # [start, stop) of the W+ rows that may move; None: all. AudioStyleNet moves rows 4 to 7: [4, 8].
    rows: list[int] | None = None
    # Largest number of frames for fitting the offset projection; memory: samples x L x D x 8 bytes
    max_samples: int = 3000
    # The identity frame, whose latent is w_ref: "neutral" (lips closest, at their usual width), "first", or "random". All
    # are chosen among the frames in which a face was found, if there are any.
    reference: Literal["neutral", "first", "random"] = "neutral"
    reference_seed: int = 0  # seed of reference=random, together with the clip's name

    def __post_init__(self) -> None:
        if min(self.components, self.identity_dims) < 1 or self.max_samples < 2:
            raise ValueError("components and identity_dims must be at least 1 and max_samples at least 2")
        if self.rows is not None and not (len(self.rows) == 2 and 0 <= self.rows[0] < self.rows[1]):
            raise ValueError(f"rows must be [start, stop] with 0 <= start < stop, got {self.rows}")


class DisplacementSpace(nn.Module):
    """The identity projection V and the offset projection, as buffers that are saved with the model.

    The offset projection is fitted on the training split alone. Outside `rows` a decoded displacement is exactly 0.
    """

    identity_mean: Tensor  # (F,) with F = L * D
    identity_axes: Tensor  # (P, F)
    identity_scale: Tensor  # (P,)
    offset_mean: Tensor  # (R * D,) with R = rows that may move
    offset_axes: Tensor  # (C, R * D)
    offset_scale: Tensor  # (C,)

    def __init__(
        self, num_rows: int, w_dim: int, rows: tuple[int, int], identity_dims: int, components: int
    ) -> None:
        """Buffers of these shapes, which `fit_space` or load_state_dict fills."""
        super().__init__()
        if not 0 <= rows[0] < rows[1] <= num_rows:
            raise TrajectoryError(f"rows {list(rows)} are outside the latent's {num_rows} rows")
        self.num_rows, self.w_dim, self.rows = num_rows, w_dim, rows
        shapes = {"identity": (identity_dims, num_rows), "offset": (components, rows[1] - rows[0])}
        for name, (count, moving_rows) in shapes.items():
            width = moving_rows * w_dim
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_axes", torch.zeros(count, width))
            self.register_buffer(f"{name}_scale", torch.ones(count))

    @property
    def identity_dims(self) -> int:
        return len(self.identity_axes)

    @property
    def num_coefficients(self) -> int:
        return len(self.offset_axes)

    def layout(self) -> dict:
        """The shape as plain numbers, from which `from_layout` builds a space without values."""
        return {
            "num_rows": self.num_rows,
            "w_dim": self.w_dim,
            "rows": list(self.rows),
            "identity": list(self.identity_axes.shape),
            "offset": list(self.offset_axes.shape),
        }

    @classmethod
    def from_layout(cls, layout: dict) -> DisplacementSpace:
        start, stop = layout["rows"]
        dims = layout["identity"][0], layout["offset"][0]
        return cls(layout["num_rows"], layout["w_dim"], (start, stop), *dims)

    def identity(self, w_ref_NLD: Tensor) -> Tensor:
        """V: identity latents (N, L, D) -> (N, P), unit variance on the fitted samples."""
        flat = w_ref_NLD.flatten(-2) - self.identity_mean
        return flat @ self.identity_axes.T / self.identity_scale

    def encode(self, d_NTLD: Tensor) -> Tensor:
        """Displacements (..., L, D) -> standardised coefficients (..., C)."""
        flat = d_NTLD[..., self.rows[0] : self.rows[1], :].flatten(-2) - self.offset_mean
        return flat @ self.offset_axes.T / self.offset_scale

    def decode(self, c_NTC: Tensor) -> Tensor:
        """Standardised coefficients (..., C) -> displacements (..., L, D)."""
        flat = (c_NTC * self.offset_scale) @ self.offset_axes
        moved = (flat + self.offset_mean).unflatten(-1, (-1, self.w_dim))
        return nn.functional.pad(moved, (0, 0, self.rows[0], self.num_rows - self.rows[1]))


def fit_space(d_NLD: np.ndarray, identities_NLD: np.ndarray, config: DisplacementConfig) -> DisplacementSpace:
    """Both projections: the offset one from displacements of the training split, V from identity latents.

    identities: preferably a thousand samples of the generator's W (`stylegan2.protocol.sample_w`), because a few
    training speakers span few directions. Raises TrajectoryError if the displacements are all equal.
    """
    num, num_rows, w_dim = d_NLD.shape
    rows = (config.rows[0], config.rows[1]) if config.rows is not None else (0, num_rows)
    try:
        identity = fit_pca(identities_NLD, config.identity_dims)
        offset = fit_pca(d_NLD[:, rows[0] : rows[1]], config.components)
    except ValueError as error:
        raise TrajectoryError(
            f"cannot fit the frozen projections on {num} training frames: {error}"
        ) from error
    space = DisplacementSpace(num_rows, w_dim, rows, len(identity.scale), len(offset.scale))
    for name, basis in (("identity", identity), ("offset", offset)):
        space.get_buffer(f"{name}_mean").copy_(torch.as_tensor(basis.mean).flatten())
        space.get_buffer(f"{name}_axes").copy_(torch.as_tensor(basis.components).flatten(1))
        space.get_buffer(f"{name}_scale").copy_(torch.as_tensor(basis.scale))
    return space
