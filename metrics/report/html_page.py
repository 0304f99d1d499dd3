"""Writes index.html and its pictures for a comparison of two folders, with the videos of the worst clips side by
side.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from metrics.report.plots import plot_apertures, plot_error_strip, plot_violins
from metrics.report.reencoding_moves import reencoding_lines
from metrics.report.report_files import COLUMNS, footnotes, format_figure, shown_columns
from metrics.scoring.score_videos import PairResult
from metrics.scoring.video_files import VideoPair, remarks
from stylegan2.weights import atomic_path

TEMPLATE = "report_page.html.j2"
MOST_CLIPS = 24  # clips on the page; those with the lowest mouth correlation come first
VIOLINS = ("psnr", "ssim", "lmd_mouth", "mouth_corr", "csim_dlib", "sface", "aperture_spread_ratio")
CLIP_FIGURES = (
    *("psnr", "ssim", "lmd", "lmd_mouth", "mouth_corr", "mouth_corr_best", "mouth_lag"),
    *("sync_confidence", "sync_offset", "lse_c", "lse_offset", "silence_ratio"),
    *("aperture_spread_ratio", "mouth_sharpness", "detection_rate"),
)


def mouth_correlation(result: PairResult) -> float:
    """The method's mouth correlation, by which the clips of the page are sorted."""
    return result.scores[0].figures["mouth_corr"] or 0.0


def write_page(
    folder: Path, report: Mapping[str, Any], pairs: Sequence[VideoPair], results: Mapping[str, PairResult]
) -> Path:
    """Writes folder/index.html and folder/pictures. report: content of report.json; results: name -> scores.

    The videos are not copied; the page links to them by relative paths.
    """
    scored = sorted(
        (pair for pair in pairs if pair.name in results),
        key=lambda pair: mouth_correlation(results[pair.name]),
    )
    clips = [
        _clip(folder, number, pair, report, results[pair.name])
        for number, pair in enumerate(scored[:MOST_CLIPS])
    ]
    plot_violins(folder / "pictures" / "violins.png", _figures_of_clips(report))
    rows = report["rows"]
    made_from = {key: report.get(key) for key in ("versions", "weights", "code", "command")}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": format_figure, "remarks": remarks, "url": _url}
    text = environment.get_template(TEMPLATE).render(
        title=f"{report['method']} against the truth",
        report=report,
        rows=rows,
        measures={name: COLUMNS[name][0] for name in shown_columns(rows)},
        notes=[*footnotes(rows, report["absent"]), *reencoding_lines(report["reencoded"])],
        pictures=["pictures/violins.png"],
        files=[record for record in report["files"] if remarks(record)],
        clips=clips,
        provenance=json.dumps(made_from, indent=1),
    )
    path = folder / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def _clip(
    folder: Path, number: int, pair: VideoPair, report: Mapping[str, Any], result: PairResult
) -> dict[str, Any]:
    """The section of one clip: remarks, figures, links of the videos and pictures, which are drawn here."""
    method, score = report["method"], result.scores[0]
    pictures = [f"pictures/{number:03d}_aperture.png"]
    plot_apertures(folder / pictures[0], score.true_aperture, {method: score.aperture}, pair.name)
    if not report["unpaired"]:
        pictures.append(f"pictures/{number:03d}_error.png")
        plot_error_strip(folder / pictures[1], score.error, result.best, result.worst, pair.name)
    record = next(record for record in report["files"] if record["name"] == pair.name)
    notes = remarks(record)
    notes += [r["reason"] for r in report["unsynced"] if (r["row"], r["clip"]) == (method, pair.name)]
    videos = {"truth": pair.reference, method: pair.prediction}
    figures = {name: score.figures.get(name) for name in CLIP_FIGURES}
    return {
        "name": pair.name,
        "status": record["status"],
        "notes": notes,
        "figures": [f"{name} {format_figure(name, v)}" for name, v in figures.items() if v is not None],
        "videos": {
            name: Path(os.path.relpath(path, folder)).as_posix() for name, path in videos.items() if path
        },
        "pictures": pictures,
    }


def _url(path: str) -> str:
    """A relative link to a file; names need not be UTF-8."""
    return quote(os.fsencode(path))


def _figures_of_clips(report: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Column -> row -> figures of its clips, for those columns of VIOLINS that have figures."""
    figures: dict[str, dict[str, list[float]]] = {}
    for column in VIOLINS:
        for record in report["clips"]:
            value = record["figures"].get(column)
            if value is not None:
                figures.setdefault(column, {}).setdefault(record["row"], []).append(value)
    return figures
