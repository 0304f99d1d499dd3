"""A face that speaks as the sound comes: sound in blocks -> frames with their sound.

It computes only when the next frame is asked for, so it reads sound no faster than the frames are taken. Memory does not
grow with the duration.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from audio.live_features import live_features
from audio.timing import SAMPLES_PER_FRAME
from stylegan2.render import render
from trajectory.model.predictor import TrajectoryPredictor, demand_live, stream


class LiveHead:
    """model: a stage 1 that needs little of the sound to come; raises TrajectoryError for another. generator: renders the
    frames. w_ref: the face's identity latent, float32 (L, D).
    """

    def __init__(self, model: TrajectoryPredictor, generator: Any, w_ref: np.ndarray) -> None:
        demand_live(model)
        self.model, self.generator, self.w_ref = model, generator, w_ref
        next(
            self.frames([np.zeros(SAMPLES_PER_FRAME, np.float32)])
        )  # the first frame takes longer than others

    def frames(self, blocks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """16 kHz mono sound, float32 (S,) in [-1, 1], in blocks of any size -> at 25 fps (image uint8 (H, W, 3), its samples
        (640,)). The last frame is completed with silence.
        """
        sounds: deque[np.ndarray] = deque()  # of the frames that are being computed

        def windows() -> Iterator[np.ndarray]:
            for frame in live_features(blocks, self.model.features, self.model.gain.device):
                sounds.append(frame.samples)
                yield frame.window

        for image in render(self.generator, stream(self.model, windows(), self.w_ref), chunk=1):
            yield image, sounds.popleft()
