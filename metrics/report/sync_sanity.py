"""Is a sync measure worth printing? It must move when the very same motion comes five frames late."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from metrics.measures.intervals import mean_over, paired_difference
from metrics.scoring.clip_score import ClipScore
from metrics.scoring.control_baselines import SHIFT

# Below this confidence sound and lips do not belong together, measured in docs/models/sync.md. There is none for lse_c:
# nobody has measured one with these crops.
LEAST_CONFIDENCE = {"sync_confidence": 0.32}
# Below this share of the median of its row's clips, of which there must be some, a clip stands out.
STANDS_OUT, SOME = 0.5, 4
# measure: (signal the unshifted row must have, least change under the shift, sign of a change for the worse)
SYNC: dict[str, tuple[float, float, int]] = {
    "mouth_corr": (0.2, 0.05, -1),
    "width_corr": (0.2, 0.05, -1),
    "mouth_lag": (0.0, SHIFT - 2, 1),
    "width_lag": (0.0, SHIFT - 2, 1),
    "closure_recall": (0.2, 0.05, -1),
    "sync_offset": (0.0, SHIFT - 2, 1),
    "lse_offset": (0.0, SHIFT - 2, 1),
}
# lag: (what says how sure it is, the least of it): of 31 lags one is always the best
LAGS = {
    "mouth_lag": ("mouth_corr_best", 0.4),
    "width_lag": ("width_corr_best", 0.4),
    "sync_offset": ("sync_confidence", LEAST_CONFIDENCE["sync_confidence"]),
    "lse_offset": ("lse_c", 0.0),  # how sure is sure enough is not known
}


def sync_check(
    scores: Sequence[ClipScore], base: str, shifted: str = "shift_5", measures: Iterable[str] = SYNC
) -> list[dict[str, Any]]:
    """One record a split and measure: how far it moves from the row `base` to the same row five frames late.

    verdict: "moves"; "broken", if it does not; "no signal", if the row itself is too weak for a shift to show (a
    frozen or unrelated mouth cannot get worse), which is no praise either. Clips that both rows have are compared; of
    lags the median decides, because the lag of an unrelated mouth may jump anywhere.
    """
    found = []
    for split in dict.fromkeys(score.split for score in scores if score.row == shifted):
        rows = {
            name: {s.clip: s for s in scores if s.row == name and s.split == split}
            for name in (base, shifted)
        }
        if not rows[base]:
            continue
        speakers = {clip: score.speaker or clip for clip, score in rows[base].items()}
        for measure in measures:
            needed, least, sign = SYNC.get(measure, (0.2, 0.05, -1))
            ours, late = (
                {clip: score.figures.get(measure) for clip, score in rows[name].items()}
                for name in (base, shifted)
            )
            moved = paired_difference(late, ours, speakers)
            if moved is None and measure.endswith("_offset"):
                continue  # the network that was not used
            record: dict[str, Any] = {"split": split, "row": base, "measure": measure, "moved": moved}
            signal, least_signal = LAGS.get(measure, (measure, needed))
            strength = mean_over([s.figures.get(signal) for s in rows[base].values()])
            weak = strength is None or strength < least_signal
            if moved is None or weak:
                verdict = "no signal"
            else:
                by = "median" if measure.endswith(("_lag", "_offset")) else "mean"
                verdict = "moves" if sign * moved[by] >= least else "broken"
            found.append(record | {"verdict": verdict})
    return found


def warnings_of(checks: Iterable[dict[str, Any]]) -> list[str]:
    """Sentences for whoever reads the table."""
    lines = []
    for check in checks:
        where = f"{check['row']} ({check['split']})"
        if check["verdict"] == "broken":
            lines.append(
                f"{check['measure']} does not move when {where} comes {SHIFT} frames late: BROKEN here"
            )
        elif check["verdict"] == "no signal" and check["measure"] == "mouth_corr":
            lines.append(
                f"the mouth of {where} does not follow the truth: mouth_corr is too low to be tested"
            )
    return lines


def unsynced(scores: Iterable[ClipScore], rows: Iterable[str]) -> list[dict[str, Any]]:
    """Clips of these rows whose lips do not belong to the sound, as the sync network sees it.

    Either the network is not sure of any offset (its confidence is below the limit, or below half of the median of the
    row's clips, which needs no limit), or it is of one that is more than a frame away from none.
    """
    wanted, found = set(rows), []
    chosen = [score for score in scores if score.row in wanted]
    for confidence, offset in (("sync_confidence", "sync_offset"), ("lse_c", "lse_offset")):
        of_row: dict[tuple[str, str], list[float]] = {}
        for score in chosen:
            if (sure := score.figures.get(confidence)) is not None:
                of_row.setdefault((score.row, score.split), []).append(sure)
        for score in chosen:
            sure, late = score.figures.get(confidence), score.figures.get(offset)
            if sure is None:
                continue
            others = of_row[score.row, score.split]
            if reason := _out_of_sync(confidence, sure, late, others):
                place = {"row": score.row, "split": score.split, "clip": score.clip}
                found.append(place | {confidence: sure, offset: late, "reason": reason})
    return found


def _out_of_sync(confidence: str, sure: float, late: float | None, others: Sequence[float]) -> str | None:
    """Why a clip is not in sync, or None. others: the confidence of all clips of its row, its own too."""
    limit, usual = LEAST_CONFIDENCE.get(confidence), float(np.median(others))
    if late is None:
        return "the lips never move, or nothing is heard"
    if len(others) >= SOME and sure < STANDS_OUT * usual:
        clips = f"less than half of the median {usual:.2g} of {len(others)} clips"
        return f"{confidence} is {sure:.2g}, {clips}: sound and lips look unrelated"
    if limit is not None and sure < limit:
        unknown = "sound and lips look unrelated, or the face is unlike those that the network knows"
        return f"{confidence} is {sure:.2g}, below {limit:g}: {unknown}"
    if abs(late) > 1:
        doubt = (
            "" if limit is not None else f", if {confidence} {sure:.2g} is sure enough (no limit is known)"
        )
        return f"the lips come {abs(late):.0f} frames {'late' if late > 0 else 'early'}{doubt}"
    return None


def unsynced_lines(found: Iterable[dict[str, Any]], scores: Iterable[ClipScore], named: int = 5) -> list[str]:
    """One sentence for each row with such clips, of which the first few are named."""
    of_row: dict[tuple[str, str], list[str]] = {}
    for record in found:
        of_row.setdefault((record["row"], record["split"]), []).append(
            f"{record['clip']}: {record['reason']}"
        )
    total = Counter((score.row, score.split) for score in scores)
    return [
        f"lips and sound of {row} ({split}) are not in sync in {len(clips)} of {total[row, split]} clips ("
        + "; ".join([*clips[:named], *(["..."] if len(clips) > named else [])])
        + ")"
        for (row, split), clips in of_row.items()
    ]
