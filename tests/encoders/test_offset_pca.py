"""The offset PCA is exact, orthonormal and repeatable."""

import numpy as np
import pytest

from encoders.bases.offset_pca import OffsetBasis, fit_pca


def low_rank(num, rank, rows=3, dim=8, seed=0):
    """num offsets (num, rows, dim) in a `rank`-dimensional affine subspace."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((rows * dim, rank)))[0].T
    spread = np.arange(rank, 0, -1)
    flat = (rng.standard_normal((num, rank)) * spread) @ axes + rng.standard_normal(rows * dim)
    return flat.reshape(num, rows, dim).astype(np.float32)


def coefficients(basis: OffsetBasis, d: np.ndarray) -> np.ndarray:
    """c_k = <d - mean, u_k> / s_k."""
    return (
        (d - basis.mean).reshape(len(d), -1) @ basis.components.reshape(len(basis.scale), -1).T / basis.scale
    )


def offsets(basis: OffsetBasis, c: np.ndarray) -> np.ndarray:
    """d = mean + sum_k s_k c_k u_k."""
    return np.tensordot(c * basis.scale, basis.components, axes=1) + basis.mean


@pytest.mark.parametrize("num", [10, 200])  # fewer and more samples than dimensions
def test_offsets_inside_the_span_come_back(num):
    d = low_rank(num, 4)
    basis = fit_pca(d, 4)
    assert np.allclose(offsets(basis, coefficients(basis, d)), d, atol=1e-4)


@pytest.mark.parametrize("num", [10, 200])
def test_components_are_orthonormal_and_coefficients_standardised(num):
    d = low_rank(num, 4)
    basis = fit_pca(d, 4)
    flat = basis.components.reshape(4, -1)
    assert np.allclose(flat @ flat.T, np.eye(4), atol=1e-5)
    c = coefficients(basis, d)
    assert np.allclose(c.mean(0), 0, atol=1e-4)
    assert np.allclose(c.T @ c / num, np.eye(4), atol=1e-3)


def test_same_axes_and_variances_as_scikit_learn():
    from sklearn.decomposition import PCA

    d = low_rank(200, 4) + 0.1 * low_rank(200, 24, seed=1)
    ours, reference = fit_pca(d, 3), PCA(3, svd_solver="full").fit(d.reshape(200, -1))
    cosine = np.abs((ours.components.reshape(3, -1) * reference.components_).sum(1))
    assert np.allclose(cosine, 1, atol=1e-4)
    assert np.allclose(ours.scale**2 * 200 / 199, reference.explained_variance_, rtol=1e-3)


def test_both_moment_matrices_give_the_same_directions_and_signs():
    d = low_rank(23, 5)  # 23 samples of 24 dimensions; repeated twice: more samples than dimensions
    small, large = fit_pca(d, 5), fit_pca(np.concatenate([d, d]), 5)
    assert np.allclose(small.components, large.components, atol=1e-4)


def test_no_more_components_than_directions():
    basis = fit_pca(low_rank(50, 2), 10)
    assert len(basis.scale) == len(basis.components) == 2


@pytest.mark.parametrize(
    ("offsets", "k", "words"),
    [
        (np.ones((5, 2, 4)), 2, "equal"),
        (np.full((5, 2, 4), np.nan), 2, "finite"),
        (np.ones((1, 2, 4)), 2, "at least 2"),
        (np.ones((5, 2, 4)), 0, "at least 1 component"),
    ],
)
def test_offsets_without_principal_components_are_refused(offsets, k, words):
    with pytest.raises(ValueError, match=words):
        fit_pca(offsets, k)
