"""Means over the clips of one speaker, and over clips of similar length, beside the mean over all clips."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from audio.timing import FPS
from metrics.measures.intervals import mean_over
from metrics.report.paired_differences import ClipRecord
from metrics.scoring.row_accumulator import MEANS

# Clips shorter than this many seconds belong to the stratum, if to no earlier one
LENGTHS = {"under 3 s": 3.0, "3 to 10 s": 10.0, "10 s or more": float("inf")}
EQUAL = "mean of strata"  # every speaker, or every length, counts the same
KEYS = ("row", "split", "by", "stratum", "n_clips", "n_frames")


def length_stratum(frames: int) -> str:
    return next(name for name, end in LENGTHS.items() if frames / FPS < end)


def strata(records: Iterable[ClipRecord]) -> list[dict[str, Any]]:
    """One record per row, split and stratum, with its mean figures; by "speaker", then by "length". The stratum EQUAL is
    the unweighted mean of the others.
    """
    clips: dict[tuple[str, str], list[ClipRecord]] = {}
    for record in records:
        clips.setdefault((record["row"], record["split"]), []).append(record)
    return [
        {"row": row, "split": split, "by": by} | stratum
        for (row, split), of_row in clips.items()
        for by, groups in (("speaker", _by_speaker(of_row)), ("length", _by_length(of_row)))
        for stratum in _means(groups)
    ]


def _by_speaker(records: Sequence[ClipRecord]) -> dict[str, list[ClipRecord]]:
    names = sorted({record["speaker"] for record in records})
    return {name: [record for record in records if record["speaker"] == name] for name in names}


def _by_length(records: Sequence[ClipRecord]) -> dict[str, list[ClipRecord]]:
    groups = {name: [r for r in records if length_stratum(r["n_frames"]) == name] for name in LENGTHS}
    return {name: group for name, group in groups.items() if group}


def _means(groups: Mapping[str, Sequence[ClipRecord]]) -> list[dict[str, Any]]:
    """The records of one kind of stratum, and their unweighted mean."""
    listed = [
        {
            "stratum": name,
            "n_clips": len(group),
            "n_frames": sum(record["n_frames"] for record in group),
            "figures": {key: mean_over([r["figures"].get(key) for r in group]) for key in MEANS},
        }
        for name, group in groups.items()
    ]
    figures = {key: mean_over([stratum["figures"][key] for stratum in listed]) for key in MEANS}
    totals = {key: sum(stratum[key] for stratum in listed) for key in ("n_clips", "n_frames")}
    return [*listed, {"stratum": EQUAL, **totals, "figures": figures}]


def strata_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """All strata at full precision; an empty cell is a figure that does not exist."""
    import pandas as pd

    lines = [[*(r[key] for key in KEYS), *(r["figures"][key] for key in MEANS)] for r in records]
    frame = pd.DataFrame(lines, columns=pd.Index((*KEYS, *MEANS)), dtype=object)
    return frame.to_csv(index=False, lineterminator="\n")
