"""KID, which unlike FID is unbiased for few frames, on the same Inception features (metrics.measures.fid).

Memory is constant, because FID needs only sums, and KID a random sample that does not depend on the frames' order.
"""

import zlib

import numpy as np

from metrics.measures.fid import Gaussian

SAMPLE = 2000  # frames that KID compares at most; 2048 float32 each, 16 MB together


class Features:
    """Features of one row's frames: of Inception a Gaussian for FID and a sample of at most `most` vectors for KID, and of
    I3D a Gaussian over windows of frames for FVD (metrics.measures.fvd).

    Each frame gets a random priority whose seed is its clip's name and its index, and the lowest priorities are sampled.
    The sample is therefore uniform and the same for any order of clips and any batch size, and two sets can be merged.
    """

    def __init__(self, most: int = SAMPLE) -> None:
        self.most = most
        self.gaussian = Gaussian()
        self.windows = Gaussian()
        self._sample = np.zeros((0, 0), np.float32)
        self._priority: np.ndarray = np.zeros(0)

    @property
    def n(self) -> int:
        return self.gaussian.n

    @property
    def sample(self) -> np.ndarray:
        """(at most `most`, D), in the order of priority."""
        return self._sample

    def update(self, features_ND: np.ndarray, clip: str, first: int) -> None:
        """Adds the features of frames first, first + 1, ... of a clip."""
        self.gaussian.update(features_ND)
        keys = [zlib.crc32(f"{clip}\0{first + i}".encode()) for i in range(len(features_ND))]
        draws = np.array([np.random.default_rng(key).random() for key in keys])
        self._resample(np.asarray(features_ND, np.float32), draws)

    def merge(self, other: "Features") -> None:
        self.gaussian.merge(other.gaussian)
        self.windows.merge(other.windows)
        self._resample(other._sample, other._priority)

    def _resample(self, features: np.ndarray, priority: np.ndarray) -> None:
        if len(features) == 0:
            return
        features = np.concatenate([self._sample, features]) if len(self._sample) else features
        priority = np.concatenate([self._priority, priority])
        chosen = np.argsort(priority, kind="stable")[: self.most]
        self._sample, self._priority = features[chosen], priority[chosen]


def kid(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
    """Unbiased squared MMD with k(a, b) = (a.b / D + 1)^3   (Binkowski et al. 2018); may be slightly negative.

    KID = sum_{i != j} k(x_i, x_j) / (N (N - 1)) + sum_{i != j} k(y_i, y_j) / (M (M - 1)) - 2 mean k(x_i, y_j)
    """
    x, y = np.asarray(x_ND, dtype=np.float64), np.asarray(y_MD, dtype=np.float64)
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"KID needs at least two frames on either side, got {n} and {m}")

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def kid_of(predicted: Features | None, true: Features | None) -> float | None:
    """KID of two rows on the same frames; None wherever FID is None too (see frechet_of for the reason)."""
    if predicted is None or true is None or predicted.n != true.n or predicted.n < 2:
        return None
    return kid(predicted.sample, true.sample)
