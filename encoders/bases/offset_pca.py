"""PCA of W+ offsets: the space in which stage 1 predicts displacements.

Shapes: N samples, T frames, K components, L rows of W+, D = 512.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OffsetBasis:
    """A PCA of W+ offsets d = w - w_ref, with coefficients c of unit variance on the fitted samples.

    c_k = <d - mean, u_k> / s_k          d ~ mean + sum_k s_k c_k u_k
    """

    mean: np.ndarray  # (L, D) float32
    components: np.ndarray  # (K, L, D) float32: u_k, orthonormal over (L, D), in order of decreasing variance
    scale: np.ndarray  # (K,) float32 > 0: s_k, the samples' standard deviation along u_k, in units of W


def fit_pca(d_NLD: np.ndarray, k: int) -> OffsetBasis:
    """The k leading principal components of N samples (fewer if the samples span fewer directions).

    Exact, from the eigenvectors of the smaller of the N x N and the LD x LD second-moment matrices. The largest entry
    of each component is positive, so that a refit gives the same signs.
    Raises ValueError if k < 1, if a sample is not finite or if all samples are equal.
    """
    if k < 1:
        raise ValueError(f"a basis needs at least 1 component, got k = {k}")
    samples = np.asarray(d_NLD, np.float32)
    num, (rows, dim) = len(samples), samples.shape[1:]
    flat = samples.reshape(num, -1)
    if num < 2 or not np.isfinite(flat).all():
        raise ValueError(f"PCA needs at least 2 finite samples, got {num} of shape {(rows, dim)}")
    mean = flat.mean(0, dtype=np.float64).astype(np.float32)
    centred = (flat - mean).astype(np.float64)  # in float32 the weak directions would not be orthogonal
    small = num <= flat.shape[1]
    moment = (centred @ centred.T if small else centred.T @ centred) / num
    variance, vectors = np.linalg.eigh(moment)
    # Variances below the rounding of float32 samples are not directions of the data.
    keep = np.flatnonzero(variance > max(variance[-1] * 1e-9, 1e-12))[::-1][:k]
    if len(keep) == 0:
        raise ValueError(f"all {num} samples are equal: they span no direction (are the clips still images?)")
    directions = vectors[:, keep].T
    if small:
        directions = directions @ centred / np.sqrt(num * variance[keep])[:, None]
    largest = np.abs(directions).argmax(1)
    directions *= np.sign(directions[np.arange(len(keep)), largest])[:, None]
    return OffsetBasis(
        mean=mean.reshape(rows, dim),
        components=directions.astype(np.float32).reshape(-1, rows, dim),
        scale=np.sqrt(variance[keep]).astype(np.float32),
    )
