"""Two checks of synchrony: do the sync measures react to a delay of five frames, and which clips are out of sync?"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from metrics.measures.intervals import mean_over, paired_difference
from metrics.scoring.control_baselines import SHIFT
from metrics.scoring.row_accumulator import ClipScore

# Below this confidence, sound and lips do not match (measured in docs/models/sync.md). No limit is known for lse_c with
# the face crops used here.
LEAST_CONFIDENCE = {"sync_confidence": 0.32}
# A clip is an outlier below this share of the median confidence of its row, if the row has at least MIN_CLIPS clips
OUTLIER_SHARE, MIN_CLIPS = 0.5, 4


class SyncTest(NamedTuple):
    """least: smallest change under the delay that counts as a reaction. sign: sign of a change for the worse. signal:
    the figure that must reach least_signal in the undelayed row for the test to be possible (default: the measure).
    """

    least: float = 0.05
    sign: int = -1
    signal: str = ""
    least_signal: float = 0.2


# Even unrelated curves have a best lag, so a lag is only tested if its correlation or confidence is high enough
SYNC_TESTS = {
    "mouth_corr": SyncTest(),
    "width_corr": SyncTest(),
    "mouth_lag": SyncTest(SHIFT - 2, 1, "mouth_corr_best", 0.4),
    "width_lag": SyncTest(SHIFT - 2, 1, "width_corr_best", 0.4),
    "closure_recall": SyncTest(),
    "sync_offset": SyncTest(SHIFT - 2, 1, "sync_confidence", LEAST_CONFIDENCE["sync_confidence"]),
    "lse_offset": SyncTest(SHIFT - 2, 1, "lse_c", 0.0),
}


def sync_check(
    scores: Sequence[ClipScore], base: str, measures: Iterable[str] = SYNC_TESTS
) -> list[dict[str, Any]]:
    """One record per split and measure: its change from the row `base` to the row shift_5 on the same clips.

    verdict: "moves" if the measure reacts to the delay, "broken" if not, "no signal" if the base row is too poor for
    the test (a frozen or unrelated mouth cannot get worse). Lags are compared by the median, because single lags of
    unrelated mouths are arbitrary.
    """
    records = []
    for split in dict.fromkeys(score.split for score in scores if score.row == "shift_5"):
        rows = {
            name: {s.clip: s for s in scores if s.row == name and s.split == split}
            for name in (base, "shift_5")
        }
        if not rows[base]:
            continue
        speakers = {clip: score.speaker or clip for clip, score in rows[base].items()}
        for measure in measures:
            test = SYNC_TESTS.get(measure, SyncTest())
            figures, delayed = (
                {clip: score.figures.get(measure) for clip, score in row.items()} for row in rows.values()
            )
            moved = paired_difference(delayed, figures, speakers)
            if moved is None and measure.endswith("_offset"):
                continue  # column of the sync network that was not used
            strength = mean_over([s.figures.get(test.signal or measure) for s in rows[base].values()])
            if moved is None or strength is None or strength < test.least_signal:
                verdict = "no signal"
            else:
                change = moved["median" if measure.endswith(("_lag", "_offset")) else "mean"]
                verdict = "moves" if test.sign * change >= test.least else "broken"
            records.append(
                {"split": split, "row": base, "measure": measure, "moved": moved, "verdict": verdict}
            )
    return records


def warnings_of(checks: Iterable[dict[str, Any]]) -> list[str]:
    """Warnings for the report from the records of sync_check."""
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
    """Clips of these rows whose lips do not match the sound according to the sync judge, with the reason.

    Either its confidence is low (below the limit, or below half of the median of the row's clips), or its offset is more
    than one frame.
    """
    names = set(rows)
    chosen = [score for score in scores if score.row in names]
    records = []
    for confidence, offset in (("sync_confidence", "sync_offset"), ("lse_c", "lse_offset")):
        of_row: dict[tuple[str, str], list[float]] = defaultdict(list)
        for score in chosen:
            if (value := score.figures.get(confidence)) is not None:
                of_row[score.row, score.split].append(value)
        for score in chosen:
            value, lag = score.figures.get(confidence), score.figures.get(offset)
            if value is None:
                continue
            if reason := _reason(confidence, value, lag, of_row[score.row, score.split]):
                place = {"row": score.row, "split": score.split, "clip": score.clip}
                records.append(place | {confidence: value, offset: lag, "reason": reason})
    return records


def _reason(confidence: str, value: float, lag: float | None, row_values: Sequence[float]) -> str | None:
    """Why a clip is out of sync, or None. row_values: confidence of all clips of its row, including its own."""
    limit, median = LEAST_CONFIDENCE.get(confidence), float(np.median(row_values))
    if lag is None:
        return "the lips never move, or there is no sound"
    if len(row_values) >= MIN_CLIPS and value < OUTLIER_SHARE * median:
        clips = f"less than half of the median {median:.2g} of {len(row_values)} clips"
        return f"{confidence} is {value:.2g}, {clips}: sound and lips look unrelated"
    if limit is not None and value < limit:
        unknown = "sound and lips look unrelated, or the face is unlike those that the network was trained on"
        return f"{confidence} is {value:.2g}, below {limit:g}: {unknown}"
    if abs(lag) > 1:
        doubt = (
            "" if limit is not None else f", if {confidence} {value:.2g} is high enough (no limit is known)"
        )
        return f"the lips come {abs(lag):.0f} frames {'late' if lag > 0 else 'early'}{doubt}"
    return None


def unsynced_lines(records: Iterable[dict[str, Any]], scores: Iterable[ClipScore]) -> list[str]:
    """One sentence per row that has clips out of sync; the first five are listed with their reasons."""
    of_row: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in records:
        of_row[record["row"], record["split"]].append(f"{record['clip']}: {record['reason']}")
    total = Counter((score.row, score.split) for score in scores)
    return [
        f"lips and sound of {row} ({split}) are not in sync in {len(clips)} of {total[row, split]} clips ("
        + "; ".join([*clips[:5], *(["..."] if len(clips) > 5 else [])])
        + ")"
        for (row, split), clips in of_row.items()
    ]
