"""Rendering: chunks, containers and shared leading rows change no frame; memory is bounded."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan2.networks.generator import StyleGAN2
from stylegan2.networks.layers import SynthesisLayer
from stylegan2.networks.mobile_stylegan import MobileStyleGAN
from stylegan2.protocol import sample_w
from stylegan2.render import render

pytestmark = pytest.mark.usefixtures("one_thread")


CAP_GIB = 1.5  # largest resident memory for 1,000 frames at 256 px, including the libraries


def generators():
    torch.manual_seed(0)
    style = StyleGAN2(32, w_dim=32, channels={4: 16, 8: 16, 16: 8, 32: 8})
    mobile = MobileStyleGAN(64, 2)
    fewer = MobileStyleGAN(64, 2, num_rows=5)
    for layer in style.modules():
        if isinstance(layer, SynthesisLayer):
            torch.nn.init.constant_(layer.noise_strength, 0.3)
    return [network.eval().requires_grad_(False) for network in (style, mobile, fewer)]


@pytest.fixture(scope="module", params=generators(), ids=["stylegan2", "mobile", "mobile with fewer rows"])
def generator(request):
    return request.param


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    network = StyleGAN2(16, z_dim=8, w_dim=8, channels={4: 8, 8: 8, 16: 4}, mapping_layers=2)
    network.mapping.estimate_w_avg(100)
    return network.eval().requires_grad_(False)


def test_frames_do_not_depend_on_chunks_or_container(small):
    w = torch.cat([sample_w(small, 5, seed=0)], 0)
    expected = np.stack(list(render(small, w, chunk=5)))
    assert expected.shape == (5, 16, 16, 3) and expected.dtype == np.uint8
    for given_w, chunk in (
        (w, 1),
        (w.numpy(), 2),
        ((row for row in w), 3),
        ([row.numpy() for row in w], 100),
    ):
        frames = np.stack(list(render(small, given_w, chunk=chunk)))
        assert np.abs(frames.astype(int) - expected).max() <= 1  # the order of a sum may differ
    half = np.stack(list(render(small, w.numpy().astype(np.float16))))
    assert np.abs(half.astype(int) - expected).mean() < 1
    assert list(render(small, w[:0])) == []


def test_latents_are_read_as_frames_are_taken(small):
    w, latents_read = sample_w(small, 1, seed=0)[0], []

    def endless():
        while True:
            latents_read.append(1)
            yield w

    frames = render(small, endless(), chunk=4)
    for _ in range(6):
        next(frames)
    assert len(latents_read) == 8
    assert not torch.is_inference_mode_enabled()  # the consumer can still train


def test_memory_does_not_grow_with_length(small):
    row = sample_w(small, 1, seed=0)[0]
    tracemalloc.start()
    peaks = []
    for length in (64, 512):
        tracemalloc.reset_peak()
        count = sum(1 for _ in render(small, (row for _ in range(length)), chunk=8))
        peaks.append(tracemalloc.get_traced_memory()[1])
        assert count == length
    tracemalloc.stop()
    assert peaks[1] < peaks[0] + 8 * 16 * 16 * 3 * 4


def test_wrong_latents_and_chunks_are_refused(small):
    with pytest.raises(ValueError, match=r"\(6, 8\).*\(14, 8\)"):
        next(render(small, torch.zeros(1, 14, 8)))
    with pytest.raises(ValueError, match="chunk"):
        next(render(small, torch.zeros(1, 6, 8), chunk=0))


@torch.inference_mode()
def test_a_synthesis_continues_from_any_row(generator):
    w = sample_w(generator, 2, 0).clone()
    for rows in (0, 1, 2, 4, 5, generator.num_rows):
        w[:, :rows] = w[0, :rows]
        expected = generator.synthesis(w)
        resumed = generator.synthesis(w, start=generator.start(w[0], rows))
        assert (resumed - expected).abs().max() < 2e-6 * expected.abs().max(), rows


@pytest.mark.parametrize("chunk", [1, 3])
def test_common_rows_are_computed_once(generator, chunk, monkeypatch):
    """The first half shares four rows, the second half two. The frames are those of a rendering without shared rows."""
    w = sample_w(generator, 6, 0).numpy().copy()
    w[:3, :4], w[3:, :2] = w[0, :4], w[0, :2]
    starts, begin = [], generator.start
    monkeypatch.setattr(generator, "start", lambda w_LD, rows: starts.append(rows) or begin(w_LD, rows))
    result = list(render(generator, w, chunk))
    assert starts[-1] == 2 and starts == sorted(set(starts), reverse=True)
    monkeypatch.setattr("stylegan2.render._SharedRows.start_of", lambda *_: {})
    plain = list(render(generator, w, chunk))
    differences = np.abs(np.asarray(result, np.int16) - np.asarray(plain, np.int16))
    assert differences.max() <= 1 and (differences > 0).mean() < 1e-3  # rounding to 8 bits


def test_a_still_face_is_synthesised_once(generator):
    w = sample_w(generator, 1, 0).numpy().repeat(5, axis=0)
    frames = list(render(generator, w, chunk=2))
    assert len(frames) == 5 and all(np.array_equal(frame, frames[0]) for frame in frames)


FRAMES = """
import sys
sys.path[:0] = [{root!r}]
import resource
import numpy as np, torch
from scripts.core.runtime import keep_freed_memory
from stylegan2.protocol import sample_w
from stylegan2.render import render
from stylegan2.load import load_generator
keep_freed_memory()
torch.set_num_threads(1)
generator = load_generator()
w = sample_w(generator, 2, 3, 0.5).numpy()
sways = (w[0] + 0.1 * np.sin(t) * (w[1] - w[0]) for t in range({count}))
print(sum(1 for _ in render(generator, sways)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow  # 1,100 frames of the embedded generator
def test_memory_does_not_grow_with_the_number_of_frames(capsys):
    peaks = {}
    for count in (100, 1000):
        program = FRAMES.format(root=str(Path(__file__).parents[2]), count=count)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        frames, kib = map(int, done.stdout.split())
        assert frames == count
        peaks[count] = kib / 2**20
    with capsys.disabled():
        print(f"\npeak of 100 frames {peaks[100]:.2f} GiB, of 1,000 {peaks[1000]:.2f} GiB")
    assert peaks[1000] < CAP_GIB and peaks[1000] - peaks[100] < 0.05
