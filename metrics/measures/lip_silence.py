"""Lip movement in silence: what viewers call chattering or trembling lips.

Curves (T,): lip aperture in inter-ocular distances, one value per frame at 25 fps. Which frames are silent is defined in
audio.silence.
"""

import numpy as np

from audio.timing import FPS

LEAST_STEPS = 5  # steps between two silent frames (and between two others) below which a mean says nothing
STILL = 1e-6  # inter-ocular distances a second below which lips do not move
# column: (definition, digits), as in metrics.report.report_files.COLUMNS
SILENCE: dict[str, tuple[str, int]] = {
    "silence_ratio": ("silence_motion over speech_motion; 1 = the lips move in silence as in speech", 3),
    "silence_motion": (
        "mean speed of lip aperture where the speech is silent, inter-ocular distances a second",
        3,
    ),
    "speech_motion": ("the same where it is not silent", 3),
    "leakage": ("mean speed of lip aperture driven by digital silence over that driven by the speech", 3),
}


def speed(curve_T: np.ndarray, known_T: np.ndarray) -> np.ndarray:
    """|x_t - x_t-1| * 25, units a second, (T,); nan at t = 0 and where one of the two frames is unknown."""
    steps = np.full(len(curve_T), np.nan)
    known = np.asarray(known_T, bool)
    both = known[1:] & known[:-1]
    steps[1:][both] = np.abs(np.diff(curve_T))[both] * FPS
    return steps


def mean_speed(speed_T: np.ndarray) -> float | None:
    """Mean of the known speeds; None for fewer than LEAST_STEPS."""
    finite = speed_T[np.isfinite(speed_T)]
    return float(finite.mean()) if len(finite) >= LEAST_STEPS else None


def ratio(motion: float | None, usual: float | None) -> float | None:
    """motion / usual; None if one is missing or the lips do not move usually (a frozen face)."""
    return None if motion is None or usual is None or usual < STILL else motion / usual


def silence_figures(
    aperture_T: np.ndarray, detected_T: np.ndarray, silent_T: np.ndarray
) -> dict[str, float | None]:
    """silence_ratio, silence_motion and speech_motion of a clip. detected_T: frames with a detected face; only steps
    between two of them count. A step counts as silent if both frames are, as speech if neither is.

    The detector's jitter moves the lips too, so the truth's own figures, and not 0, are what to compare with.
    """
    steps, silent = speed(aperture_T, detected_T), np.asarray(silent_T, bool)
    before = np.concatenate([silent[:1], silent[:-1]])
    quiet, loud = mean_speed(steps[silent & before]), mean_speed(steps[~silent & ~before])
    return {"silence_ratio": ratio(quiet, loud), "silence_motion": quiet, "speech_motion": loud}
