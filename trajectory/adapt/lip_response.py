"""How far the lips open in the frames that a generator renders, beside the opening that the codes stand for (ours).

    a = ā + β (o - ō)        o' = ō + g (o - ō) + δ,   g = s / β,   δ = (ō - ā) / β

o: the lips' opening that is put into the codes, ō its mean over the person's own frames. a: the opening found in rendered
frames. A generator tuned on a person shows a smaller movement than the codes stand for (β of 0.5 to 0.9 on four real people), and
often another mean. With the codes of o' the rendered opening has the mean ō, and s times the spread of the person's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trajectory.training.amplitude_calibration import LARGEST_GAIN

RenderedOpening = Callable[
    [np.ndarray], np.ndarray
]  # codes (K, L, D) -> opening in frames (K,), nan without a face
QUANTILES = (5, 20, 35, 50, 65, 80, 95)  # percent of the person's openings at which frames are rendered
LEAST_FACES = 4


@dataclass(frozen=True)
class LipResponse:
    """slope: β; offset: ā - ō, inter-ocular distances. The default is a generator that shows what the codes stand for."""

    slope: float = 1.0
    offset: float = 0.0

    def gain(self, spread: float) -> float:
        """g for a rendered spread of `spread` times the person's own; between 1 / LARGEST_GAIN and LARGEST_GAIN."""
        return float(np.clip(spread / max(self.slope, 1e-6), 1 / LARGEST_GAIN, LARGEST_GAIN))

    def shift(self, deviation: float) -> float:
        """δ, at most the person's standard deviation of the opening, `deviation`, to either side."""
        return float(np.clip(-self.offset / max(self.slope, 1 / LARGEST_GAIN), -deviation, deviation))


def lip_response(opening_K: np.ndarray, rendered_K: np.ndarray, mean: float) -> LipResponse:
    """Least squares through the openings that were put in (K,) and found (K,); the default if too few faces were found."""
    found = np.isfinite(rendered_K)
    if found.sum() < LEAST_FACES or np.ptp(opening_K[found]) == 0:
        return LipResponse()
    slope, level = np.polyfit(opening_K[found] - mean, rendered_K[found], 1)
    return LipResponse(float(slope), float(level - mean))
