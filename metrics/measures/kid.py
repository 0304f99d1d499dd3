"""KID beside FID: unbiased where frames are few. Features are those of metrics.measures.fid's Inception.

Constant memory: sums for FID, and for KID a sample of the frames that does not depend on the order in which they come.
"""

import zlib

import numpy as np

from metrics.measures.fid import Gaussian

SAMPLE = 2000  # frames kept for KID; 16 MB of 2048 float32


class Features:
    """What FID and KID need of one row's frames: a Gaussian, and the SAMPLE vectors of the lowest priority.

    A frame's priority is a random number drawn from its clip's name and its index, so the sample is uniform, the
    same in every order of the clips and in every batch size, and two sets can be merged.
    """

    def __init__(self, most: int = SAMPLE) -> None:
        self.most = most
        self.gaussian = Gaussian()
        self._kept = np.zeros((0, 0), np.float32)
        self._priority: np.ndarray = np.zeros(0)

    @property
    def n(self) -> int:
        return self.gaussian.n

    @property
    def sample(self) -> np.ndarray:
        """(at most SAMPLE, D), in the order of priority."""
        return self._kept

    def update(self, features_ND: np.ndarray, clip: str, first: int) -> None:
        """Features of the frames first, first + 1, ... of a clip."""
        self.gaussian.update(features_ND)
        keys = [zlib.crc32(f"{clip}\0{first + i}".encode()) for i in range(len(features_ND))]
        draws = np.array([np.random.default_rng(key).random() for key in keys])
        self._keep(np.asarray(features_ND, np.float32), draws)

    def merge(self, other: "Features") -> None:
        self.gaussian.merge(other.gaussian)
        self._keep(other._kept, other._priority)

    def _keep(self, features: np.ndarray, priority: np.ndarray) -> None:
        if len(features) == 0:
            return
        together = np.concatenate([self._kept, features]) if len(self._kept) else features
        priority = np.concatenate([self._priority, priority])
        chosen = np.argsort(priority, kind="stable")[: self.most]
        self._kept, self._priority = together[chosen], priority[chosen]


def kid(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
    """Unbiased squared MMD with k(a, b) = (a.b / D + 1)^3   (Binkowski et al. 2018); may be slightly negative.

    KID = sum_{i != j} k(x_i, x_j) / (N (N - 1)) + the same of y - 2 mean k(x_i, y_j)
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
    """KID of two rows on the same frames; None where FID is None too (its reason stands there)."""
    if predicted is None or true is None or predicted.n != true.n or predicted.n < 2:
        return None
    return kid(predicted.sample, true.sample)
