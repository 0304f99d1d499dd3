"""How far a mean over clips can be trusted."""

from collections.abc import Sequence

import numpy as np


def mean_over(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there (clips equally weighted); None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def bootstrap_interval(
    values: Sequence[float | None], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean over clips; None for fewer than two clips.

    Clips, not frames, are drawn with replacement: frames of one clip are not independent.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(known), size=(resamples, len(known)))
    low, high = np.quantile(known[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
