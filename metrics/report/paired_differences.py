"""Differences between rows, or between the methods of two reports, on identical clips."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metrics.measures.intervals import paired_difference
from metrics.report.report_schema import ReportError
from metrics.scoring.row_accumulator import MEANS, ClipScore

ClipRecord = Mapping[str, Any]  # one entry of report.json's "clips"


def clip_records(scores: Iterable[ClipScore]) -> list[dict[str, Any]]:
    """The figures of every clip as report.json lists them."""
    return [
        {
            "row": score.row,
            "split": score.split,
            "clip": score.clip,
            "speaker": score.speaker or score.clip,
            "n_frames": score.n_frames,
            "figures": score.figures,
        }
        for score in scores
    ]


def of_row(records: Iterable[ClipRecord], row: str, split: str) -> dict[str, ClipRecord]:
    """clip -> record of one row and split."""
    return {r["clip"]: r for r in records if r["row"] == row and r["split"] == split}


def difference(
    first: Mapping[str, ClipRecord], second: Mapping[str, ClipRecord]
) -> dict[str, dict[str, Any]]:
    """Column -> paired_difference (first - second), for the columns that both have on at least one clip."""
    speakers = {clip: record["speaker"] for clip, record in first.items()}
    gaps = {}
    for column in MEANS:
        a, b = ({c: r["figures"].get(column) for c, r in side.items()} for side in (first, second))
        if gap := paired_difference(a, b, speakers):
            gaps[column] = gap
    return gaps


def compare_rows(records: Sequence[ClipRecord], bases: Iterable[str]) -> list[dict[str, Any]]:
    """Each base row against every other row of the same split."""
    comparisons = []
    for base in bases:
        for split in dict.fromkeys(r["split"] for r in records if r["row"] == base):
            base_clips = of_row(records, base, split)
            for other in dict.fromkeys(r["row"] for r in records if r["split"] == split and r["row"] != base):
                gaps = difference(base_clips, of_row(records, other, split))
                comparisons.append({"row": base, "against": other, "split": split, "differences": gaps})
    return comparisons


def compare_reports(
    records: Sequence[ClipRecord], row: str, split: str, other: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """A row against the method of another report of two folders, named `name`; ReportError if they share no clip."""
    gaps = difference(of_row(records, row, split), of_row(other["clips"], other["method"], split))
    if not gaps:
        raise ReportError(f"{name} was scored on other clips: a paired difference needs the same names")
    return {"row": row, "against": other["method"], "report": name, "split": split, "differences": gaps}
