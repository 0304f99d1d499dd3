"""What one looks at after comparing two folders: index.html with videos side by side, and its pictures."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from metrics.report.html_page import ClipView, page, remarks
from metrics.report.plots import plot_apertures, plot_error_strip, plot_violins
from metrics.scoring.score_videos import PairResult
from stylegan2.weights import atomic_path

MOST_CLIPS = 24  # on the page; those whose mouths follow the truth worst come first
VIOLINS = ("psnr", "ssim", "lmd_mouth", "mouth_corr", "csim_dlib")


class Files(Protocol):
    """scripts.stages.evaluate_folders.Pair: where the two videos of a name lie."""

    @property
    def name(self) -> str: ...
    @property
    def reference(self) -> Path | None: ...
    @property
    def prediction(self) -> Path | None: ...


def badness(result: PairResult) -> float:
    """Low where the mouth does not follow the truth."""
    return result.scores[0].figures["mouth_corr"] or 0.0


def write_pages(
    folder: Path, report: Mapping[str, Any], pairs: Sequence[Files], results: Mapping[str, PairResult]
) -> Path:
    """folder/index.html and folder/pictures; the videos stay where they are and are linked relative to the page."""
    method = report["method"]
    files = {record["name"]: record for record in report["files"]}
    apart = {r["clip"]: r["reason"] for r in report["unsynced"] if r["row"] == method}

    scored = sorted(
        (pair for pair in pairs if pair.name in results), key=lambda pair: badness(results[pair.name])
    )
    views = []
    for number, pair in enumerate(scored[:MOST_CLIPS]):
        result, record = results[pair.name], files[pair.name]
        score = result.scores[0]
        pictures = [f"pictures/{number:03d}_{kind}.png" for kind in ("aperture", "error")]
        plot_apertures(folder / pictures[0], score.true_aperture, {method: score.aperture}, pair.name)
        plot_error_strip(folder / pictures[1], score.error, result.best, result.worst, pair.name)
        videos = {"truth": pair.reference, method: pair.prediction}
        links = {
            name: Path(os.path.relpath(path, folder)).as_posix() for name, path in videos.items() if path
        }
        notes = [*remarks(record), *([apart[pair.name]] if pair.name in apart else [])]
        views.append(ClipView(pair.name, record["status"], notes, score.figures, links, pictures))
    plot_violins(folder / "pictures" / "violins.png", per_clip(report))
    path = folder / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page(report, views, ["pictures/violins.png"]), encoding="utf-8")
    return path


def per_clip(report: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Column -> row -> figures of its clips, of the columns that some row has."""
    found: dict[str, dict[str, list[float]]] = {}
    for column in VIOLINS:
        for record in report["clips"]:
            value = record["figures"].get(column)
            if value is not None:
                found.setdefault(column, {}).setdefault(record["row"], []).append(value)
    return found
