"""Shared fixtures: tiny talking clips of the embedded generator, fast enough for every test run."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from audio.timing import RATE, SAMPLES_PER_FRAME
from audio.waveform import Waveform
from encoders.footage.video_writer import write_video
from scripts.core.runtime import keep_freed_memory
from stylegan2.load import load_generator
from stylegan2.protocol import sample_w
from stylegan2.render import render

FRAMES = 12
SEEDS = (3, 5, 8)  # faces that dlib finds


@pytest.fixture(scope="session", autouse=True)
def _like_a_script() -> None:
    keep_freed_memory()
    torch.set_num_threads(max(1, 2 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Limits torch to one thread: with two, such small networks spend their time waiting, on a busy machine for
    minutes.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise_bursts(frames: int, seed: int = 0) -> Waveform:
    """Noise in bursts of a tenth of a second, as a fast substitute for speech."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(frames * SAMPLES_PER_FRAME) * 0.1
    time = np.arange(len(samples)) / RATE
    return Waveform((samples * (np.sin(2 * np.pi * 5 * time) > 0)).astype(np.float32))


def talking_frames(seed: int, frames: int = FRAMES) -> list[np.ndarray]:
    """256 px frames of a synthetic face whose code oscillates slightly."""
    generator = load_generator()
    w = sample_w(generator, 1, seed, 0.5)[0].numpy()
    sway = sample_w(generator, 1, seed + 1000, 0.5)[0].numpy() - w
    sway[:3] = sway[7:] = 0
    turns = 0.15 * np.sin(np.arange(frames) * 0.9)
    return list(render(generator, w + turns[:, None, None] * sway))


@pytest.fixture(scope="session")
def speech() -> Callable[..., Waveform]:
    return noise_bursts


@pytest.fixture(scope="session")
def face() -> np.ndarray:
    """One synthetic face, uint8 (256, 256, 3)."""
    return talking_frames(SEEDS[0], 1)[0]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers' videos of half a second with sound, in sub-folders whose names need quoting."""
    folder = tmp_path_factory.mktemp("my clips [1] a=b")
    for number, seed in enumerate(SEEDS):
        path = folder / f"speaker {number}" / f"take={number}, [x].mp4"
        path.parent.mkdir()
        write_video(path, talking_frames(seed), noise_bursts(FRAMES, seed))
    return folder
