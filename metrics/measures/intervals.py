"""How far a mean over clips can be trusted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def mean_over(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there (clips equally weighted); None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def weighted_mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """sum w v / sum w over the values that are there; None if there are none."""
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in known)
    return float(sum(value * weight for value, weight in known) / total) if total > 0 else None


def weighted_interval(
    values: Sequence[float | None],
    weights: Sequence[float],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the weighted mean; a clip is drawn with its weight. None for fewer than two.

    The values are sorted first: the draws are the same whatever order the clips came in.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    known = sorted(
        (value, weight) for value, weight in zip(values, weights, strict=True) if value is not None
    )
    if len(known) < 2:
        return None
    v, w = np.array(known, dtype=np.float64).T
    drawn = np.random.default_rng(seed).integers(len(v), size=(resamples, len(v)))
    means = (v[drawn] * w[drawn]).sum(axis=1) / w[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(
    values: Sequence[float | None], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean over clips; None for fewer than two clips.

    Clips, not frames, are drawn with replacement: frames of one clip are not independent.
    """
    return weighted_interval(values, [1.0] * len(values), level, resamples, seed)


def speaker_interval(
    values: Sequence[float | None],
    speakers: Sequence[str],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The same with speakers drawn with replacement, each with all of their clips; None for fewer than two speakers.

    Clips of one speaker resemble one another: if the claim is about people, this is the interval to print.
    """
    known = [(who, value) for who, value in zip(speakers, values, strict=True) if value is not None]
    names = sorted({who for who, _ in known})
    if len(names) < 2:
        return None
    sums = np.array([sum(value for who, value in known if who == name) for name in names])
    counts = np.array([sum(who == name for who, _ in known) for name in names])
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    ours: Mapping[str, float | None], theirs: Mapping[str, float | None], speakers: Mapping[str, str]
) -> dict[str, Any] | None:
    """Mean (and median) of ours - theirs over the clips that both have, with intervals; None if they share none.

    ours, theirs: clip -> figure; speakers: clip -> speaker. A paired difference is far tighter than the difference of
    two means, because hard clips are hard for both.
    """
    shared = sorted(clip for clip in ours.keys() & theirs.keys() if None not in (ours[clip], theirs[clip]))
    if not shared:
        return None
    gaps = [float(ours[clip]) - float(theirs[clip]) for clip in shared]  # type: ignore[arg-type]
    who = [speakers.get(clip, clip) for clip in shared]
    return {
        "mean": float(np.mean(gaps)),
        "median": float(np.median(gaps)),
        "interval": bootstrap_interval(gaps),
        "interval_speakers": speaker_interval(gaps, who),
        "n_clips": len(shared),
        "n_speakers": len(set(who)),
    }
