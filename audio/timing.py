"""Sample <-> video frame arithmetic, in exact integers.

Video frame t covers samples [640 t, 640 (t + 1)) and is centred on sample 640 t + 320: every feature window,
every lag and every mux in this project follows from these two lines.
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
    """Samples that `frames` video frames last: frames * RATE / FPS. Raises ValueError for a negative count."""
    if frames < 0:
        raise ValueError(f"a frame count cannot be negative, got {frames}")
    return frames * RATE // FPS


def centre_of_frame(frame: int) -> int:
    """Sample on which video frame `frame` is centred: 640 t + 320."""
    return frame * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2


def frame_of_sample(sample: int) -> int:
    """Video frame during which `sample` sounds (floor, so negative samples fall before frame 0)."""
    return sample * FPS // RATE
