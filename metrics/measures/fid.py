"""FID: the Fréchet distance between Gaussians fitted to the 2048 pool features of pytorch-fid's Inception network.

If the weights are not on this machine, FID is None and the reason is reported. Nothing is downloaded, and no other
network is used instead of Inception, because its distances would not be comparable.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan2.public.catalogue import demanded
from stylegan2.weights import WeightsError

Inception = Callable[[Tensor], np.ndarray]


class Gaussian:
    """Running mean and covariance of feature vectors (D,), from float64 sums, so that the vectors need not be stored."""

    def __init__(self) -> None:
        self.n = 0
        self._sum: np.ndarray = np.zeros(())  # (D,) after the first update
        self._outer: np.ndarray = np.zeros(())  # (D, D) after the first update

    def update(self, features_ND: np.ndarray) -> None:
        x = np.asarray(features_ND, dtype=np.float64)
        self.n += len(x)
        self._sum = self._sum + x.sum(axis=0)
        self._outer = self._outer + x.T @ x

    def merge(self, other: Gaussian) -> None:
        """Adds the feature vectors of another Gaussian."""
        self.n += other.n
        self._sum = self._sum + other._sum
        self._outer = self._outer + other._outer

    @property
    def mean(self) -> np.ndarray:
        return self._sum / self.n

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, as np.cov. ValueError for fewer than two vectors."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least two frames, got {self.n}")
        mean = self.mean
        return (self._outer - self.n * np.outer(mean, mean)) / (self.n - 1)


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """d^2 = |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^1/2)   (Heusel et al. 2017).

    (C1 C2)^1/2 has the same trace as (S C2 S)^1/2 with S = C1^1/2. The latter is symmetric, so its eigenvalues are real
    even where the covariances are singular, as they are for fewer frames than features.
    """
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov2 @ root).clip(min=0)).sum()
    difference = mean1 - mean2
    return float(max(difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * cross, 0.0))


def frechet_of(
    predicted: Gaussian | None, true: Gaussian | None, missing: str | None, unit: str = "frame"
) -> tuple[float | None, str | None]:
    """(FID or FVD, None), or (None, reason). missing: the reason if no network was loaded. unit: what one vector is of."""
    if predicted is None or true is None:
        return None, missing or f"no {unit}s of ground_truth were scored on this split"
    if predicted.n != true.n:
        return (
            None,
            f"{predicted.n} {unit}s against {true.n} of ground_truth: the rows do not have the same {unit}s",
        )
    if predicted.n < 2:
        return None, f"a covariance needs at least two {unit}s, got {predicted.n}"
    return frechet_distance(predicted.mean, predicted.covariance, true.mean, true.covariance), None


def load_inception(
    path: str | Path | None = None, device: torch.device | str = "cpu"
) -> tuple[Inception | None, str | None]:
    """(features, None) with features(x_N3HW in [-1, 1]) -> (N, 2048), or (None, reason). Downloads nothing.

    path: pytorch-fid's weight file; by default the place that stylegan2/public/catalogue.py names.
    """
    try:
        import pytorch_fid.inception as package
    except ImportError:
        return None, "pytorch-fid is not installed: pip install pytorch-fid"
    try:
        path = demanded("inception_fid", "Inception", path)
    except WeightsError as error:
        return None, str(error)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = _inception(package, state).to(device).eval()
    except (OSError, EOFError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        return (
            None,
            f"{path} is not pytorch-fid's weight file, or is damaged ({type(error).__name__}): fetch it again",
        )

    @torch.inference_mode()
    def features(x_N3HW: Tensor) -> np.ndarray:
        return network(x_N3HW.to(device))[0].flatten(1).cpu().numpy()

    return features, None


def _inception(package: Any, state: dict[str, Tensor]) -> torch.nn.Module:
    """InceptionV3 for images in [-1, 1]. Its constructor downloads the weights, so the download returns `state` here."""
    download = package.load_state_dict_from_url
    package.load_state_dict_from_url = lambda *_, **__: state
    try:
        return package.InceptionV3(normalize_input=False)
    finally:
        package.load_state_dict_from_url = download
