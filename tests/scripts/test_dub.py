"""compose=frame and compose=photo: the order of frames, frames without a face, and what is refused."""

from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from drawn_videos import grey, levels
from PIL import Image

from configs.schema import Config
from encoders.footage.video_reader import iter_frames, own_rate, probe
from encoders.footage.video_writer import write_video
from scripts.core.runtime import Run, RunError
from scripts.stages import dub
from scripts.stages.dub import Blend, Track, codes_at, dubbed, forth_and_back, frames_in_order, opacity_of
from scripts.stages.generate import read_inputs


def test_a_clip_goes_forth_and_back():
    assert forth_and_back(4, 12).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]
    assert forth_and_back(4, 3).tolist() == [0, 1, 2]
    assert forth_and_back(2, 5).tolist() == [0, 1, 0, 1, 0]
    assert forth_and_back(1, 1).tolist() == [0]


@pytest.mark.parametrize("count", [1, 5, 12, 23, 24, 40])
def test_frames_are_read_in_that_order(tmp_path, monkeypatch, count):
    write_video(tmp_path / "x.mp4", levels(12, 16))
    monkeypatch.setattr(dub, "BACKWARDS", 3 * grey(0).nbytes)  # three frames at once
    order = forth_and_back(12, count)
    frames = frames_in_order(tmp_path / "x.mp4", Fraction(25), order)
    assert [round(frame.mean() / 16) for frame in frames] == order.tolist()


def test_frames_at_the_clips_own_rate(tmp_path):
    rate = Fraction(30000, 1001)
    assert write_video(tmp_path / "x.mp4", levels(12, 16), fps=rate) == 12
    assert own_rate(tmp_path / "x.mp4") == rate and probe(tmp_path / "x.mp4").fps == pytest.approx(
        29.97, abs=0.01
    )
    assert [round(f.mean() / 16) for f in iter_frames(tmp_path / "x.mp4", rate)] == list(range(12))
    write_video(tmp_path / "slow.mp4", levels(4), fps=5)
    assert own_rate(tmp_path / "slow.mp4") == 25


def test_codes_between_those_of_25_fps():
    w = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
    np.testing.assert_allclose(codes_at(w, Fraction(25), np.arange(10)), w)
    between = codes_at(w, Fraction(30), np.arange(12))[:, 0, 0]
    np.testing.assert_allclose(between, np.minimum(np.arange(12) / 1.2, 9), rtol=1e-5)


def test_opacity_falls_beside_frames_without_a_face_and_short_gaps_are_bridged():
    seen = np.ones(40, bool)
    np.testing.assert_array_equal(opacity_of(seen, 4.0), 1.0)
    seen[10:13] = False  # three frames: bridged
    seen[20:30] = False
    seen[:2] = False  # nothing is known before them
    opacity = opacity_of(seen, 4.0)
    assert (opacity[:2] == 0).all() and (opacity[20:30] == 0).all() and (opacity[6:16] == 1).all()
    np.testing.assert_allclose(opacity[15:20], [1, 0.8, 0.6, 0.4, 0.2], atol=1e-6)
    assert opacity_of(np.zeros(5, bool), 4.0).max() == 0


class GreyGenerator:
    """Shows the mean of a code as a grey image."""

    num_rows, w_dim, w_avg = 2, 4, torch.zeros(4)

    def synthesis(self, w_NLD: torch.Tensor, noise: str = "const") -> torch.Tensor:
        return w_NLD.mean((1, 2))[:, None, None, None].expand(-1, 3, 8, 8)


def run_dubbed(count: int, opacity: list[float]) -> tuple[list[np.ndarray], list[np.ndarray], list[Any]]:
    clip = [np.full((60, 80, 3), 10 * t, np.uint8) for t in range(len(opacity))]
    quads = np.tile(np.array([[0, 0], [0, 50], [50, 50], [50, 0]], np.float32), (len(clip), 1, 1))
    track = Track(quads, np.zeros((len(clip), 68, 2), np.float32), np.array(opacity, np.float32))
    order = forth_and_back(len(clip), count)
    sources = [clip[t] for t in order]
    blended: list[Any] = []

    def blend(frame, true, generated, quad, landmarks, opacity):
        blended.append((int(frame[0, 0, 0]), int(true[0, 0, 0]), int(generated[0, 0, 0]), float(opacity)))
        return frame + 1

    def codes(crops: np.ndarray, k_N: np.ndarray) -> np.ndarray:
        assert len(crops) == len(k_N)
        return np.tile((k_N / 127.5 - 1)[:, None, None].astype(np.float32), (1, 2, 4))

    def frames() -> Iterator[np.ndarray]:
        yield from sources

    made = dubbed(frames(), order, track, codes, GreyGenerator(), blend)  # type: ignore[arg-type]
    return list(made), sources, blended


def test_frames_without_a_face_are_passed_through():
    made, sources, blended = run_dubbed(14, [0, 0, 0.5, 1, 1, 1, 0.5, 0, 0, 0])
    known = [2, 3, 4, 5, 6, 12, 13]
    order = forth_and_back(10, 14)
    assert order[12] == 6
    for k, (new, old) in enumerate(zip(made, sources, strict=True)):
        assert (new is old) == (k not in known)
    # Each frame is blended with its own crop, its own code and its own opacity.
    assert [(f, t, g) for f, t, g, _ in blended] == [(10 * order[k], 10 * order[k], k) for k in known]
    assert [o for *_, o in blended] == [0.5, 1, 1, 1, 0.5, 0.5, 1]


def test_a_clip_without_any_face_is_passed_through():
    made, sources, blended = run_dubbed(5, [0, 0, 0, 0, 0])
    assert all(new is old for new, old in zip(made, sources, strict=True)) and not blended


def test_blending_keeps_what_is_outside_the_mask(face):
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    frame[20:276, 30:286] = face
    quad = np.array([[29.5, 19.5], [29.5, 275.5], [285.5, 275.5], [285.5, 19.5]], np.float32)
    blend = Blend(torch.device("cpu"))
    points = np.array(
        [[128 + 60 * np.cos(a), 150 + 70 * np.sin(a)] for a in np.linspace(3.1, 0, 68)], np.float32
    )
    points[31:36] = np.stack([np.linspace(112, 144, 5), np.full(5, 150)], axis=1)
    made = blend(frame, face, 255 - face, quad, points)
    changed = (made != frame).any(axis=2)
    assert changed[20 + 180, 30 + 128] and not changed[:, 286:].any() and not changed[: 20 + 100].any()
    same = blend(frame, face, face, quad, points, opacity=0.0)
    np.testing.assert_array_equal(same, frame)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"compose": "frame"}, "give clip=VIDEO"),
        ({"compose": "frame", "photo": "me.jpg"}, "give clip=VIDEO"),
        ({"compose": "photo"}, "give photo=FILE"),
        ({"compose": "photo", "clip": "me.mp4"}, "give photo=FILE"),
        ({"compose": "photo", "photo": "."}, "give photo=FILE"),
    ],
)
def test_combinations_without_a_picture_are_refused_at_once(tmp_path, settings, words):
    run = Run(tmp_path / "results", tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=words) as caught:
        read_inputs(Config(wav=str(tmp_path / "missing.wav"), **settings), run)
    assert "\n" not in str(caught.value)


def test_a_photo_gets_its_face_back(tmp_path, monkeypatch, face):
    picture = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    picture[80:336, 120:376] = face
    Image.fromarray(picture).save(tmp_path / "me.png")
    config = Config(compose="photo", photo=str(tmp_path / "me.png"))
    run: Any = SimpleNamespace(device=torch.device("cpu"))
    monkeypatch.setattr(dub, "render", lambda generator, w: iter([face] * len(w)))
    frames, rate = dub.composed(config, run, None, None, np.zeros((3, 14, 512)))  # type: ignore[arg-type]
    frame = next(frames)
    assert rate == 25 and frame.shape == picture.shape
    differs = (frame != picture).any(axis=2)
    assert (
        differs.any()
        and not differs[:150].any()
        and not differs[:, :120].any()
        and not differs[:, 376:].any()
    )
