"""The row `reencoded`: the method's own frames through H.264 once more, which shows how far a measure depends on coding.

A measure that moves here by as much as two methods differ cannot tell them apart: LSE-C and LSE-D are known to move by
0.4 to 1.2. Frames are uint8 (H, W, 3).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from encoders.footage.video_reader import iter_frames
from encoders.footage.video_writer import write_video

REENCODED = "reencoded"
CRF = 28  # x264's constant rate factor: about the quality of videos on the web


@contextmanager
def reencoded_file(frames: Iterable[np.ndarray]) -> Iterator[Path]:
    """A temporary mp4 of the frames without sound. An odd height or width grows by a pixel."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "reencoded.mp4"
        write_video(path, frames, crf=CRF)
        yield path


def reencoded(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames after encoding and decoding; as many as before, at least one."""
    with reencoded_file(frames) as path:
        yield from iter_frames(path)
