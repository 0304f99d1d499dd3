"""A CSV with the column names of THEval's raw metrics table (Quignon et al., CVPR Findings 2026).

The names are THEval's, the figures are this project's nearest ones (COLUMNS): other landmarks, other networks. THEval
scores each column by its closeness to the row GT of the same table, 1 - |value - GT| / GT, so a table with its own GT row
is consistent in itself; its values must not be put beside THEval's own rows. Global aesthetic has no measure here and stays empty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# THEval's column: this project's columns, of which the first that exists is used
COLUMNS: dict[str, tuple[str, ...]] = {
    "Global aesthetic": (),
    "Mouth quality": ("mouth_sharpness",),
    "Face quality": ("face_sharpness",),
    "Lip dynamics": ("aperture_spread_ratio",),
    "Head motion dynamics": ("head_motion",),
    "Eyebrow dynamics": ("brows_speed_ratio",),
    "Silent lip stability": ("silence_motion",),
    "Lip sync": ("lse_c", "sync_confidence"),
}
TRUTH = "GT"


def theval_csv(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Split -> CSV of its rows, ground_truth first as GT. A split without a ground_truth row has none."""
    import pandas as pd

    tables = {}
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows if row["split"] == split]
        truth = [row for row in of_split if row["name"] == "ground_truth"]
        if not truth:
            continue
        used = {name: _existing(of_split, columns) for name, columns in COLUMNS.items()}
        lines = [
            [TRUTH if row in truth else row["name"], *(row.get(c) if c else None for c in used.values())]
            for row in [*truth, *(row for row in of_split if row not in truth)]
        ]
        frame = pd.DataFrame(lines, columns=pd.Index(("Model", *used)), dtype=object)
        tables[split] = frame.to_csv(index=False, lineterminator="\n")
    return tables


def _existing(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str | None:
    return next((c for c in columns if any(row.get(c) is not None for row in rows)), None)
