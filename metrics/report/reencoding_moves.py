"""By how much the measures of sync and sharpness move when the prediction is encoded once more."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metrics.measures.sharpness import SHARPNESS
from metrics.measures.sync_distance import SYNC_COLUMNS
from metrics.report.paired_differences import ClipRecord, difference, of_row
from metrics.scoring.reencoding import CRF, REENCODED

MOVED = ("mouth_corr", *SYNC_COLUMNS, *SHARPNESS)


def reencoding_moves(records: Sequence[ClipRecord], base: str) -> list[dict[str, Any]]:
    """One record per split that has the row `reencoded`: column -> paired difference from the row `base` (reencoded less
    base on the same clips), for the columns of MOVED that exist.
    """
    moves = []
    for split in dict.fromkeys(r["split"] for r in records if r["row"] == REENCODED):
        gaps = difference(of_row(records, REENCODED, split), of_row(records, base, split))
        chosen = {name: gaps[name] for name in MOVED if name in gaps}
        moves.append({"row": base, "split": split, "moved": chosen})
    return moves


def reencoding_lines(moves: Iterable[Mapping[str, Any]]) -> list[str]:
    """One sentence for each record of reencoding_moves."""
    return [
        f"H.264 at CRF {CRF} moves {move['row']} ({move['split']}) by: "
        + ", ".join(f"{name} {gap['mean']:+.3g}" for name, gap in move["moved"].items())
        for move in moves
        if move["moved"]
    ]
