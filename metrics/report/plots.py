"""Pictures to look at: apertures over time, strips of frames, truth and prediction side by side.

Frames are uint8 (H, W, 3); T frames.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from audio.timing import FPS
from metrics.measures.lip_motion import CLOSED
from metrics.scoring.score_videos import Extreme
from stylegan2.images import resize, to_tensor, to_uint8
from stylegan2.weights import atomic_path

TRUTH = "#444444"


def plot_apertures(
    path: str | Path, true_aperture: np.ndarray, predicted: Mapping[str, np.ndarray], title: str = ""
) -> None:
    """Lip aperture of the truth (T,) and of each row (T,), one panel per row, over seconds; PNG, PDF or SVG."""
    # Figure and its Agg canvas, not pyplot: no global state, no display
    figure = Figure(figsize=(9, 1.2 + 1.8 * max(len(predicted), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(max(len(predicted), 1), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    seconds = np.arange(len(true_aperture)) / FPS
    for panel, (name, curve) in zip(panels, predicted.items(), strict=False):
        panel.plot(seconds, true_aperture, color=TRUTH, linewidth=1.2, label="truth")
        panel.plot(seconds, curve, color="#d1495b", linewidth=1.2, label=name)
        panel.axhline(CLOSED, color=TRUTH, linewidth=0.6, linestyle=":")
        panel.legend(loc="upper right", fontsize=8, frameon=False, ncols=2)
        panel.set_ylabel("aperture")
    panels[-1].set_xlabel("seconds")
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def plot_error_strip(
    path: str | Path, error: np.ndarray, best: Sequence[Extreme], worst: Sequence[Extreme], title: str = ""
) -> None:
    """Mouth error (T,) over time, nan where unknown, with the best and the worst frames below: truth above prediction."""
    shown = [
        *((frame, "best", "#2a7f62") for frame in best),
        *((frame, "worst", "#d1495b") for frame in worst),
    ]
    figure = Figure(figsize=(9, 4.4))
    FigureCanvasAgg(figure)
    curve = figure.add_axes((0.07, 0.68, 0.91, 0.24))
    curve.plot(np.arange(len(error)) / FPS, error, color=TRUTH, linewidth=1)
    curve.set_xlabel("seconds")
    curve.set_ylabel("mouth error, px", fontsize=8)
    if shown:
        lines = [[getattr(frame, side) for frame, _, _ in shown] for side in ("true", "predicted")]
        picture = np.concatenate([np.concatenate([_scaled(f, 128) for f in line], axis=1) for line in lines])
        below = figure.add_axes((0.01, 0.01, 0.98, 0.5))
        below.imshow(picture)
        below.set_axis_off()
        for column, (frame, name, colour) in enumerate(shown):
            curve.plot(frame.index / FPS, frame.error, "o", color=colour, markersize=4)
            caption = f"{name} {frame.index / FPS:.2f} s"
            below.text(column * 128 + 64, -6, caption, ha="center", fontsize=7, color=colour)
    if title:
        figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def plot_violins(path: str | Path, figures: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Column -> row -> its clips' figures: one panel a column, one violin a row, every clip a dot."""
    figure = Figure(figsize=(3.2 * max(len(figures), 1), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(len(figures), 1), squeeze=False)[0]
    for panel, (column, rows) in zip(panels, figures.items(), strict=False):
        for place, values in enumerate(rows.values()):
            if len(values) > 1 and np.ptp(values) > 0:  # a density needs a spread
                panel.violinplot([list(values)], positions=[place], showmeans=True)
            panel.plot([place] * len(values), values, "o", color=TRUTH, markersize=2.5, alpha=0.6)
        panel.set_xticks(range(len(rows)), list(rows), fontsize=7, rotation=20)
        panel.set_title(f"{column} (N = {max((len(v) for v in rows.values()), default=0)})", fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def strip(
    true: Sequence[np.ndarray], predicted: Sequence[np.ndarray], columns: int = 8, size: int = 128
) -> np.ndarray:
    """Truth above prediction at evenly spaced frames: uint8 (2 size, columns size, 3)."""
    if len(true) != len(predicted) or not len(true):
        raise ValueError(
            f"expected as many predicted as true frames, and some, got {len(predicted)} and {len(true)}"
        )
    chosen = np.linspace(0, len(true) - 1, columns).round().astype(int)
    rows = [
        np.concatenate([_scaled(frames[t], size) for t in chosen], axis=1) for frames in (true, predicted)
    ]
    return np.concatenate(rows, axis=0)


def side_by_side(*videos: Iterable[np.ndarray], size: int | None = None) -> Iterator[np.ndarray]:
    """Frames of several videos next to one another, as long as the shortest lasts; size: height of each, px."""
    for frames in zip(*videos, strict=False):
        height = size or frames[0].shape[0]
        yield np.concatenate([_scaled(frame, height) for frame in frames], axis=1)


def save_image(path: str | Path, image: np.ndarray) -> None:
    """uint8 (H, W, 3) to PNG or JPEG, by the suffix."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary)


def _scaled(frame: np.ndarray, size: int) -> np.ndarray:
    frame = np.asarray(frame)
    return frame if frame.shape[:2] == (size, size) else to_uint8(resize(to_tensor(frame), size))[0]
