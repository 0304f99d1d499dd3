"""Means over clips and their bootstrap intervals.

Intervals are the central 95 % of the means of 2000 random draws with replacement, with a fixed seed. None is returned
if there are fewer than two clips (or speakers).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Interval = tuple[float, float]
LEVEL, RESAMPLES, SEED = 0.95, 2000, 0


def mean_over(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None, clips weighted equally; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def weighted_mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """sum w v / sum w over the values that are not None; None if there are none."""
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in known)
    return float(sum(value * weight for value, weight in known) / total) if total > 0 else None


def weighted_interval(values: Sequence[float | None], weights: Sequence[float]) -> Interval | None:
    """Interval of the weighted mean; a clip is drawn together with its weight.

    The values are sorted first, so that the draws do not depend on the order of the clips.
    """
    known = sorted(
        (value, weight) for value, weight in zip(values, weights, strict=True) if value is not None
    )
    if len(known) < 2:
        return None
    v, w = np.array(known, dtype=np.float64).T
    return _percentiles(v * w, w)


def bootstrap_interval(values: Sequence[float | None]) -> Interval | None:
    """Interval of the mean over clips. Clips are drawn rather than frames, because frames of one clip are not
    independent.
    """
    return weighted_interval(values, [1.0] * len(values))


def speaker_interval(values: Sequence[float | None], speakers: Sequence[str]) -> Interval | None:
    """Interval of the mean over clips when speakers are drawn, each with all of their clips. It applies to statements
    about new speakers, because clips of one speaker are not independent.
    """
    known = [(who, value) for who, value in zip(speakers, values, strict=True) if value is not None]
    names = sorted({who for who, _ in known})
    if len(names) < 2:
        return None
    sums = np.array([sum(value for who, value in known if who == name) for name in names])
    counts = np.array([sum(who == name for who, _ in known) for name in names])
    return _percentiles(sums, counts)


def _percentiles(sums: np.ndarray, counts: np.ndarray) -> Interval:
    """Percentiles of sum(sums) / sum(counts) over draws of units, each a clip or a speaker."""
    drawn = np.random.default_rng(SEED).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_difference(
    first: Mapping[str, float | None], second: Mapping[str, float | None], speakers: Mapping[str, str]
) -> dict[str, Any] | None:
    """Mean and median of first - second over the clips that both have, with intervals; None if they share no clip.

    first, second: clip -> figure; speakers: clip -> speaker. The interval of a paired difference is much narrower than
    that of the difference of two means, because difficult clips are difficult for both.
    """
    shared = sorted(clip for clip in first.keys() & second.keys() if None not in (first[clip], second[clip]))
    if not shared:
        return None
    gaps = [float(first[clip]) - float(second[clip]) for clip in shared]  # type: ignore[arg-type]
    names = [speakers.get(clip, clip) for clip in shared]
    return {
        "mean": float(np.mean(gaps)),
        "median": float(np.median(gaps)),
        "interval": bootstrap_interval(gaps),
        "interval_speakers": speaker_interval(gaps, names),
        "n_clips": len(shared),
        "n_speakers": len(set(names)),
    }
