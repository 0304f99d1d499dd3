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
from metrics.landmarks import CLOSED
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
