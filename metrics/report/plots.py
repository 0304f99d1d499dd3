"""Plots and images of the report: apertures and errors over time, violins, strips of frames, videos side by side.

Frames are uint8 (H, W, 3); curves (T,) have one value per frame at 25 fps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from audio.timing import FPS
from metrics.measures.lip_motion import CLOSED
from metrics.scoring.score_videos import ScoredFrame
from stylegan2.images import resize, to_tensor, to_uint8
from stylegan2.weights import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUTH, PREDICTION, BEST = "#444444", "#d1495b", "#2a7f62"  # colours


def plot_apertures(
    path: str | Path, true_aperture: np.ndarray, predicted: Mapping[str, np.ndarray], title: str = ""
) -> None:
    """Lip aperture (T,) of the truth and of each row, which may differ in length, one panel per row; PNG, PDF or SVG by
    the suffix.
    """
    figure = _figure(figsize=(9, 1.2 + 1.8 * max(len(predicted), 1)), layout="constrained")
    panels = figure.subplots(max(len(predicted), 1), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, (name, curve) in zip(panels, predicted.items(), strict=False):
        for values, colour, label in ((true_aperture, TRUTH, "truth"), (curve, PREDICTION, _literal(name))):
            panel.plot(np.arange(len(values)) / FPS, values, color=colour, linewidth=1.2, label=label)
        panel.axhline(CLOSED, color=TRUTH, linewidth=0.6, linestyle=":")
        panel.legend(loc="upper right", fontsize=8, frameon=False, ncols=2)
        panel.set_ylabel("aperture")
    panels[-1].set_xlabel("seconds")
    _save(figure, path, title, dpi=120)


def plot_error_strip(
    path: str | Path,
    error: np.ndarray,
    best: Sequence[ScoredFrame],
    worst: Sequence[ScoredFrame],
    title: str = "",
) -> None:
    """Mouth error (T,) over time, nan where unknown; below it the best and worst frames, truth above prediction."""
    frames = [*((f, "best", BEST) for f in best), *((f, "worst", PREDICTION) for f in worst)]
    figure = _figure(figsize=(9, 4.4))
    curve = figure.add_axes((0.07, 0.68, 0.91, 0.24))
    curve.plot(np.arange(len(error)) / FPS, error, color=TRUTH, linewidth=1)
    curve.set_xlabel("seconds")
    curve.set_ylabel("mouth error, px", fontsize=8)
    if frames:
        lines = [[f.true for f, _, _ in frames], [f.predicted for f, _, _ in frames]]
        picture = np.concatenate([_joined(line, 128) for line in lines])
        below = figure.add_axes((0.01, 0.01, 0.98, 0.5))
        below.imshow(picture)
        below.set_axis_off()
        for column, (frame, name, colour) in enumerate(frames):
            curve.plot(frame.index / FPS, frame.error, "o", color=colour, markersize=4)
            caption = f"{name} {frame.index / FPS:.2f} s"
            below.text(column * 128 + 64, -6, caption, ha="center", fontsize=7, color=colour)
    _save(figure, path, title)


def plot_violins(path: str | Path, figures: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Column -> row -> figures of its clips: one panel per column, one violin per row, one dot per clip."""
    figure = _figure(figsize=(3.2 * max(len(figures), 1), 3.2), layout="constrained")
    panels = figure.subplots(1, max(len(figures), 1), squeeze=False)[0]
    for panel, (column, rows) in zip(panels, figures.items(), strict=False):
        for place, values in enumerate(rows.values()):
            if len(values) > 1 and np.ptp(values) > 0:  # a density cannot be estimated from equal values
                panel.violinplot([list(values)], positions=[place], showmeans=True)
            panel.plot([place] * len(values), values, "o", color=TRUTH, markersize=2.5, alpha=0.6)
        panel.set_xticks(range(len(rows)), [_literal(name) for name in rows], fontsize=7, rotation=20)
        panel.set_title(
            f"{_literal(column)} (N = {max((len(v) for v in rows.values()), default=0)})", fontsize=9
        )
    _save(figure, path)


def strip(
    true: Sequence[np.ndarray], predicted: Sequence[np.ndarray], columns: int = 8, size: int = 128
) -> np.ndarray:
    """Truth above prediction at evenly spaced frames: uint8 (2 size, columns size, 3)."""
    if len(true) != len(predicted) or not len(true):
        raise ValueError(
            f"expected as many predicted as true frames, and some, got {len(predicted)} and {len(true)}"
        )
    chosen = np.linspace(0, len(true) - 1, columns).round().astype(int)
    return np.concatenate([_joined([frames[t] for t in chosen], size) for frames in (true, predicted)])


def side_by_side(*videos: Iterable[np.ndarray], size: int | None = None) -> Iterator[np.ndarray]:
    """Joins the frames of several videos horizontally, up to the end of the shortest; size: height of each, px."""
    for frames in zip(*videos, strict=False):
        yield _joined(frames, size or frames[0].shape[0])


def save_image(path: str | Path, image: np.ndarray) -> None:
    """uint8 (H, W, 3) to PNG or JPEG, by the suffix."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary)


def _joined(frames: Iterable[np.ndarray], size: int) -> np.ndarray:
    """The frames, each resized to (size, size), side by side."""
    arrays = [np.asarray(frame) for frame in frames]
    small = [x if x.shape[:2] == (size, size) else to_uint8(resize(to_tensor(x), size))[0] for x in arrays]
    return np.concatenate(small, axis=1)


def _figure(**options: Any) -> Figure:
    """A matplotlib figure without display and without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**options)
    FigureCanvasAgg(figure)
    return figure


def _literal(name: str) -> str:
    """A name as matplotlib shows it unchanged: it would read text between two `$` as mathematics."""
    return name.replace("$", r"\$")


def _save(figure: Figure, path: str | Path, title: str = "", dpi: int = 110) -> None:
    if title:
        figure.suptitle(_literal(title), fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
