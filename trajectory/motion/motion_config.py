"""The settings of a video's motion beside that of the lips."""

import math
from dataclasses import dataclass
from typing import Literal

LARGEST_GAIN = 5.0


@dataclass
class MotionConfig:
    """How head and eyelids move in generate.py's videos; evaluation uses no such motion."""

    # none: only the lips move. natural: motion drawn from a model of real speakers, to suit the speech. clip: that of a
    # person in a video.
    kind: Literal["none", "natural", "clip"] = "natural"
    # Video for kind=clip. None: the video of clip=.
    clip: str | None = None
    # Whether the head moves, and whether the eyes blink.
    head: bool = True
    blink: bool = True
    # Factor on the motion of the head. 1: as much as the fitted speaker, who sits still; free talk has 3 or more.
    gain: float = 1.0
    # Seed of natural motion.
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.gain <= LARGEST_GAIN or not math.isfinite(self.gain):
            raise ValueError(f"motion.gain is {self.gain}; it must lie in 0 .. {LARGEST_GAIN:g}.")
        if self.seed < 0:
            raise ValueError(f"motion.seed is {self.seed}; it must be 0 or more.")
        if self.clip is not None and self.kind != "clip":
            raise ValueError(f"motion.clip={self.clip} is used only with motion=clip; give that too.")
