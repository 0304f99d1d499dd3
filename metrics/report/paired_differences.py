"""Differences between rows, or between methods of two reports, on identical clips."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metrics.measures.intervals import paired_difference
from metrics.report.report_schema import ReportError
from metrics.scoring.clip_score import MEANS, ClipScore


def clip_records(scores: Iterable[ClipScore]) -> list[dict[str, Any]]:
    """The per-clip figures as they stand in report.json."""
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


def of_row(records: Iterable[Mapping[str, Any]], row: str, split: str) -> dict[str, Mapping[str, Any]]:
    """clip -> record, of one row and split."""
    return {r["clip"]: r for r in records if r["row"] == row and r["split"] == split}


def difference(
    ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Column -> paired_difference (ours - theirs), of the columns that both have on some clip."""
    speakers = {clip: record["speaker"] for clip, record in ours.items()}
    found = {}
    for column in MEANS:
        mine, other = ({c: r["figures"].get(column) for c, r in side.items()} for side in (ours, theirs))
        if gap := paired_difference(mine, other, speakers):
            found[column] = gap
    return found


def compare_rows(records: Sequence[Mapping[str, Any]], bases: Iterable[str]) -> list[dict[str, Any]]:
    """Every other row of a split against each base row."""
    found = []
    for base in bases:
        for split in dict.fromkeys(r["split"] for r in records if r["row"] == base):
            ours = of_row(records, base, split)
            for other in dict.fromkeys(r["row"] for r in records if r["split"] == split and r["row"] != base):
                gaps = difference(ours, of_row(records, other, split))
                found.append({"row": base, "against": other, "split": split, "differences": gaps})
    return found


def compare_reports(
    ours: Sequence[Mapping[str, Any]], row: str, split: str, other: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """Our row against the method of another report of two folders; ReportError if they share no clip."""
    theirs = of_row(other["clips"], other["method"], split)
    gaps = difference(of_row(ours, row, split), theirs)
    if not gaps:
        raise ReportError(f"{name} was scored on other clips: a paired difference needs the same names")
    return {"row": row, "against": other["method"], "report": name, "split": split, "differences": gaps}
