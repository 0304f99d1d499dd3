"""Sample <-> video frame arithmetic, in exact integers.

Video frame t covers samples [640 t, 640 (t + 1)) and is centred on sample 640 t + 320. Feature windows, lags and the
sound of written videos follow this rule everywhere in the project.
"""

FPS = 25
RATE = 16000
SAMPLES_PER_FRAME = RATE // FPS  # 640, no remainder


def frames_of_samples(samples: int) -> int:
    """Video frames needed to cover `samples` samples: ceil(samples * FPS / RATE), without floating point.

    Raises ValueError for a negative count.
    """
    if samples < 0:
        raise ValueError(f"a sample count cannot be negative, got {samples}")
    return -(-samples * FPS // RATE)


def samples_of_frames(frames: int) -> int:
    """Samples in `frames` video frames: frames * RATE / FPS. Raises ValueError for a negative count."""
    if frames < 0:
        raise ValueError(f"a frame count cannot be negative, got {frames}")
    return frames * RATE // FPS
