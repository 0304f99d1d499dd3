"""How fast frames come from live sound: frames a second without waiting, the first frame's latency and the worst gap."""

import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from audio.timing import FPS, RATE, SAMPLES_PER_FRAME
from configs.schema import Config
from scripts.core.networks import build_predictor, build_renderer
from scripts.core.runtime import Run
from scripts.stages.live_head import LiveHead
from stylegan2.protocol import sample_w
from trajectory.model.predictor import shipped_stage1

FACE_SEED = 3


def live_speed(config: Config, run: Run, precisions: dict[str, torch.dtype | None]) -> list[dict[str, Any]]:
    """One row for each precision of the generator, with torch's current number of threads.

    frames_per_s: the sound is there at once. first_frame_s and worst_gap_s: the sound comes in real time, 40 ms at a
    time; the first frame's time is counted from the sound's beginning, with the face's code known and the networks loaded.
    Frames come in groups, because features are computed in chunks, so a gap is at least as long as a chunk.
    """
    renderer = build_renderer(config, run)
    w_ref_LD = sample_w(renderer, 1, FACE_SEED, 0.5)[0].cpu().numpy()
    model = build_predictor(shipped_stage1(streaming=True), config, run)
    rows = []
    for name, dtype in precisions.items():
        renderer.compute_in(dtype)
        head = LiveHead(model, renderer, w_ref_LD)
        at_once = frame_times(head, _noise(config.benchmark.clip_seconds))
        frames_per_s = (len(at_once) - 1) / (at_once[-1] - at_once[0])
        live = frame_times(head, in_real_time(_noise(config.benchmark.stream_seconds)))
        gap = max(later - earlier for earlier, later in pairwise(live))
        row = {"precision": name, "threads": torch.get_num_threads(), "frames_per_s": frames_per_s}
        row |= {"first_frame_s": live[0], "worst_gap_s": gap, "seconds": len(live) / FPS}
        rows.append(row)
    return rows


def frame_times(head: LiveHead, blocks: Iterable[np.ndarray]) -> list[float]:
    """Seconds from the call until each frame."""
    started = time.perf_counter()
    return [time.perf_counter() - started for _ in head.frames(blocks)]


def in_real_time(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks, each no earlier than a microphone would have recorded it."""
    started, samples = time.perf_counter(), 0
    for block in blocks:
        samples += len(block)
        time.sleep(max(0.0, started + samples / RATE - time.perf_counter()))
        yield block


def _noise(seconds: float) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for _ in range(max(2, round(seconds * FPS))):
        yield 0.1 * rng.standard_normal(SAMPLES_PER_FRAME, dtype=np.float32)
