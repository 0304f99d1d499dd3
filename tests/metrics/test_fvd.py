"""FVD with a small TorchScript network that is called as I3D's file is; its three features are the window's mean colour."""

import hashlib
import shutil
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from brightness_face import Brightness, Reader
from torch import Tensor

from metrics.measures.fvd import FRAMES, SIDE, Window, at_network_size, load_i3d
from metrics.scoring import row_accumulator, score_videos
from metrics.scoring.row_accumulator import Judges
from metrics.scoring.score_clips import summarise, with_frechet
from metrics.scoring.score_unpaired import score_unpaired
from metrics.scoring.score_videos import PairOptions, PairResult, score_pair
from stylegan2.public.catalogue import CATALOGUE, FOLDER, state_of

LEVELS = (60 + 40 * np.sin(np.arange(3 * FRAMES + 5) * 0.11)).round().astype(int)  # three windows and a rest
BATCHES = PairOptions(batch=7)


class MeanColour(torch.nn.Module):
    def forward(
        self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> Tensor:
        assert return_features and not rescale and not resize
        assert x.shape[1] == 3 and x.shape[2] == 16 and x.shape[3] == 224 and x.shape[4] == 224
        return x.mean(dim=(2, 3, 4)) * 127.5


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("i3d") / "small.pt"
    torch.jit.script(MeanColour()).save(str(path))
    return path


@pytest.fixture
def admit(monkeypatch):
    """Makes a file's hash that of the catalogue."""

    def admit(path: Path) -> Path:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(CATALOGUE, "i3d_fvd", replace(CATALOGUE["i3d_fvd"], sha256=digest))
        return path

    return admit


@pytest.fixture
def judges(file, admit, monkeypatch) -> Judges:
    """Without SSIM and cropping, which frames of one colour do not need."""
    monkeypatch.setattr(row_accumulator, "ssim", lambda a, b: float((a == b).mean()))
    monkeypatch.setattr(
        score_videos, "crop", lambda frame, quad: np.full((256, 256, 3), frame[0, 0, 0], np.uint8)
    )
    i3d, reason = load_i3d(admit(file))
    assert i3d is not None and reason is None
    return Judges(Reader(), identity=Brightness(), i3d=i3d, no_i3d=None)


def frames_of(levels) -> list[np.ndarray]:
    return [np.full((64, 64, 3), level, np.uint8) for level in levels]


def rows_of(result: PairResult, judges: Judges) -> dict[str, dict]:
    features = {(row, "all"): own for row, own in result.features.items()}
    return {row["name"]: row for row in with_frechet(summarise(result.scores), features, judges)}


def rows(predicted, judges: Judges) -> dict[str, dict]:
    frames = chain(frames_of(predicted), repeat(None))
    return rows_of(
        score_pair("ours", "a", "s1", frames_of(LEVELS), frames, judges, BATCHES),
        judges,
    )


def test_a_window_is_16_consecutive_frames():
    window, frames = Window(), frames_of(range(60))
    assert [t for t in range(40) if window.completed(frames[t], t) is not None] == [15, 31]
    assert window.completed(frames[45], 45) is None  # a gap: frames 32 to 39 are dropped
    assert [t for t in range(46, 61) if window.completed(frames[t - 1], t) is not None] == [60]
    whole = Window()
    for t in range(3, 18):
        assert whole.completed(frames[t], t) is None
    last = whole.completed(frames[18], 18)
    assert last is not None and last.shape == (16, 64, 64, 3) and last[:, 0, 0, 0].tolist() == [*range(3, 19)]


@pytest.mark.parametrize("shape", [(256, 256), (96, 96), (256, 455), (455, 256)])
def test_frames_become_224_px(shape):
    """The shorter side is resized, and the middle of the longer side is kept: a bright stripe there stays in the middle."""
    frames = np.zeros((16, *shape, 3), np.uint8)
    frames[:, shape[0] // 2 - 8 : shape[0] // 2 + 8, shape[1] // 2 - 8 : shape[1] // 2 + 8] = 255
    x = at_network_size(frames)
    assert x.shape == (16, 3, SIDE, SIDE)
    assert float(x.min()) == pytest.approx(-1, abs=1e-5) and float(x.max()) == pytest.approx(1, abs=1e-5)
    bright = (x[0, 0] > 0).nonzero().float().mean(dim=0)
    np.testing.assert_allclose(bright.numpy(), [111.5, 111.5], atol=1)


def test_identical_videos_have_no_distance_and_a_shifted_mean_a_known_one(judges):
    same = rows(LEVELS, judges)
    assert same["ours"]["fvd"] == pytest.approx(0, abs=1e-5) and same["ours"]["fvd_reason"] is None
    assert same["ground_truth"]["fvd"] == pytest.approx(0, abs=1e-5)
    brighter = rows(LEVELS + 2, judges)  # |m1 - m2|^2 of three features, equal covariances
    assert brighter["ours"]["fvd"] == pytest.approx(3 * 2**2, rel=1e-4)
    assert brighter["static"]["fvd"] > 1 and brighter["ours"]["fid"] is None
    assert brighter["ours"]["fid_reason"] == "no Inception network was given"
    assert brighter["shift_5"]["fvd"] is None  # it has no images


def test_the_order_of_windows_does_not_count(judges):
    reversed_windows = np.concatenate([*LEVELS[: 3 * FRAMES].reshape(3, FRAMES)[::-1], LEVELS[3 * FRAMES :]])
    assert rows(reversed_windows, judges)["ours"]["fvd"] == pytest.approx(0, abs=1e-4)


def test_other_speech_has_an_fvd_too(judges, monkeypatch):
    from metrics.scoring import score_unpaired as module

    monkeypatch.setattr(module, "crop", lambda frame, quad: np.full((256, 256, 3), frame[0, 0, 0], np.uint8))
    result = score_unpaired(
        "ours", "a", "s1", frames_of(LEVELS), frames_of(LEVELS[::-1] + 2), judges, BATCHES
    )
    assert rows_of(result, judges)["ours"]["fvd"] > 3 * 2**2 * 0.9


def test_too_few_windows_have_a_reason(judges):
    short = score_pair("ours", "a", "s1", frames_of(LEVELS[:20]), frames_of(LEVELS[:20]), judges, BATCHES)
    row = rows_of(short, judges)["ours"]
    assert row["fvd"] is None and row["fvd_reason"] == "a covariance needs at least two windows, got 1"


def test_a_missing_or_another_file_has_a_reason(file, admit, tmp_path):
    i3d, reason = load_i3d(tmp_path / "absent.pt")
    assert i3d is None and reason and "absent.pt" in reason and "entry=i3d_fvd" in reason
    i3d, reason = load_i3d(file)  # a program with another hash is not run
    assert i3d is None and reason and "has sha256" in reason
    text, weights = tmp_path / "text.pt", tmp_path / "weights.pt"
    text.write_text("no network")
    torch.save({"a": torch.zeros(2)}, weights)
    for path in (text, weights):
        i3d, reason = load_i3d(admit(path))
        assert i3d is None and reason and "no TorchScript file" in reason and "\n" not in reason


def test_the_file_in_the_folder_of_weights_is_used(file, admit, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    shutil.copy(admit(file), tmp_path / CATALOGUE["i3d_fvd"].file)
    i3d, reason = load_i3d()
    assert i3d is not None and reason is None and state_of("i3d_fvd").startswith("verified")
    np.testing.assert_allclose(i3d(np.full((16, 96, 96, 3), 255, np.uint8)), np.full((1, 3), 127.5))
