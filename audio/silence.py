"""Where speech is silent: the one definition, from the waveform, of the pauses in which lips should rest.

S samples at 16 kHz, T video frames.
"""

import numpy as np

from audio.timing import SAMPLES_PER_FRAME
from audio.waveform import SILENT

# A frame is quiet if its RMS is this far below the clip's loud frames (95th percentile). That is about the 15.9 dB below
# the active speech level at which ITU-T P.56 (method B) ends activity, because loud frames lie some 4 dB above that level.
QUIET_DB = 20.0
# Frames (240 ms): a shorter quiet run is the closure of a plosive or a gap between two words
SHORTEST_PAUSE = 6
# Frames (80 ms) at both ends of a pause in which lips still close after a word, or open before one
EDGE = 2


def frame_rms(samples: np.ndarray, num_frames: int) -> np.ndarray:
    """RMS of the 640 samples of each video frame, float64 (T,). samples (S,): padded with silence, or cut."""
    length = num_frames * SAMPLES_PER_FRAME
    padded = np.zeros(length)
    padded[: min(length, len(samples))] = samples[:length]
    return np.sqrt((padded.reshape(num_frames, SAMPLES_PER_FRAME) ** 2).mean(axis=1))


def silent_frames(samples: np.ndarray, num_frames: int) -> np.ndarray:
    """Whether the speaker is silent, bool (T,); samples (S,) in [-1, 1].

    Silent are the frames of runs of at least SHORTEST_PAUSE quiet frames, less EDGE frames at an end that borders on
    sound. Quiet: QUIET_DB below the 95th percentile of the RMS, or below SILENT. Steady noise or music above that level
    hides the pauses: then no frame is silent.
    """
    silent = np.zeros(num_frames, bool)
    if num_frames == 0:
        return silent
    rms = frame_rms(samples, num_frames)
    quiet = rms < max(SILENT, float(np.quantile(rms, 0.95)) * 10 ** (-QUIET_DB / 20))
    edges = np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8))
    for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        if end - start >= SHORTEST_PAUSE:
            silent[start + EDGE * (start > 0) : end - EDGE * (end < num_frames)] = True
    return silent
