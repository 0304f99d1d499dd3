"""The sound of prepared clips is moved to fit the picture, once, also after a stop."""

from dataclasses import replace

import numpy as np
import pytest

from audio.timing import SAMPLES_PER_FRAME
from encoders.footage.prepare import PrepareConfig
from encoders.geometry import aperture
from encoders.manifest import ClipEntry
from encoders.records import FrameClip
from scripts.core.runtime import compose, resolve, start
from scripts.stages import synchronise as stage
from scripts.stages.synchronise import OFFSETS, synchronise, synchronised

FRAMES = 150
NAMES = ("ann/a", "ann/b", "bob/c")


def clip_with_late_sound(name: str, late: int, seed: int) -> FrameClip:
    """Noise as loud as the lips are open, `late` frames after the picture."""
    rng = np.random.default_rng(seed)
    opening = np.convolve(rng.random(FRAMES + 8), np.hanning(9) / 4, "valid")
    landmarks = np.zeros((FRAMES, 68, 2), np.float32)
    landmarks[:, 36:42, 0], landmarks[:, 42:48, 0] = 100, 160
    landmarks[:, 66, 1] = 20 * opening
    loudness = np.repeat(np.roll(opening, late), SAMPLES_PER_FRAME)
    return FrameClip(
        name=name,
        speaker=name.split("/")[0],
        sentence=name,
        split="train",
        source=name,
        source_hash="",
        frames=np.zeros((FRAMES, 8, 8, 3), np.uint8),
        landmarks=landmarks,
        quads=np.zeros((FRAMES, 4, 2), np.float32),
        detected=np.ones(FRAMES, bool),
        waveform=(0.05 * loudness * rng.standard_normal(len(loudness))).astype(np.float32),
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Clips of two speakers whose sound is 3, 5 and -4 frames late; the model hears loudness."""

    def heard(clip, _model):
        loudness = np.sqrt((clip.waveform.reshape(FRAMES, -1) ** 2).mean(axis=1))
        return stage.lag_correlations(loudness, aperture(clip.landmarks), clip.detected)

    monkeypatch.setattr(stage, "lag_curve", heard)
    monkeypatch.setattr(stage, "load_trajectory", lambda *_: None)
    for seed, (name, late) in enumerate(zip(NAMES, (3, 5, -4), strict=True)):
        clip_with_late_sound(name, late, seed).save(tmp_path / f"{name}.safetensors")
    return tmp_path


@pytest.fixture
def run(tmp_path):
    return start(resolve(compose([f"results_dir={tmp_path / 'r'}", f"data_dir={tmp_path}"])), quiet=True)


ENTRIES = [ClipEntry(n, f"{n}.safetensors", n.split("/")[0], n, "train", FRAMES) for n in NAMES]


def shifts(folder):
    clips = [FrameClip.load(folder / f"{name}.safetensors") for name in NAMES]
    return [clip.sound_shift / SAMPLES_PER_FRAME for clip in clips]


def test_each_clip_has_its_own_offset(folder, run):
    before = FrameClip.load(folder / "ann/a.safetensors").waveform
    entries = synchronise(ENTRIES, folder, PrepareConfig(), False, run)
    assert np.allclose(shifts(folder), [3, 5, -4], atol=0.25)
    assert [e.figures["sync_offset"] for e in entries] == pytest.approx([3, 5, -4], abs=0.25)
    assert min(e.figures["sync_certainty"] for e in entries) > 0.3
    moved = FrameClip.load(folder / "ann/a.safetensors")
    assert np.array_equal(moved.waveform[:1000], before[moved.sound_shift : moved.sound_shift + 1000])


def test_stopped_run_moves_each_sound_once(folder, run):
    synchronise(ENTRIES, folder, PrepareConfig(), False, run)
    once = [FrameClip.load(folder / f"{name}.safetensors").content_hash() for name in NAMES]
    clip_with_late_sound("ann/b", 5, 1).save(folder / "ann/b.safetensors")  # as before the stop
    synchronise(ENTRIES, folder, PrepareConfig(), False, run)
    assert [FrameClip.load(folder / f"{name}.safetensors").content_hash() for name in NAMES] == once


def test_one_offset_for_all_clips_of_a_speaker(folder, run):
    clip_with_late_sound("ann/b", 3, 1).save(folder / "ann/b.safetensors")
    synchronise(ENTRIES, folder, PrepareConfig(), True, run)
    ann_a, ann_b, bob = shifts(folder)
    assert ann_a == ann_b == pytest.approx(3, abs=0.25) and bob == pytest.approx(-4, abs=0.25)


def test_stated_offset_and_none(folder, run):
    assert synchronise(ENTRIES, folder, PrepareConfig(sync="none"), False, run) == ENTRIES
    assert shifts(folder) == [0, 0, 0] and not (folder / OFFSETS).exists()
    synchronise(ENTRIES, folder, PrepareConfig(sync="2.5"), False, run)
    assert shifts(folder) == [2.5, 2.5, 2.5]
    with pytest.raises(ValueError, match="auto, none or a number"):
        PrepareConfig(sync="later")


def test_uncertain_estimate_changes_nothing(folder, run):
    clip = clip_with_late_sound("bob/c", 0, 2)
    noise = np.random.default_rng(9).standard_normal(len(clip.waveform)).astype(np.float32)
    replace(clip, waveform=0.1 * noise).save(folder / "bob/c.safetensors")
    entry = synchronise(ENTRIES[2:], folder, PrepareConfig(), False, run)[0]
    assert shifts(folder)[2] == 0 and entry.figures["sync_certainty"] < 0.3


def test_single_clip(folder, run, capsys):
    late = FrameClip.load(folder / "ann/b.safetensors")
    assert synchronised(late, PrepareConfig(), run).sound_shift == pytest.approx(5 * 640, abs=160)
    assert "is +5.0 frames late" in capsys.readouterr().out
    assert synchronised(late, PrepareConfig(sync="none"), run) is late


def test_clip_below_a_limit_is_named_with_its_figure():
    prepare = PrepareConfig(min_face_px=60, min_sync_certainty=0.5)
    assert prepare.unsuitable({"face_px": 80.0, "sync_certainty": 0.6}) == ""
    assert prepare.unsuitable({"face_px": 41.5}) == "face_px is 41.5, below prepare.min_face_px=60"
    assert PrepareConfig().unsuitable({"sync_offset": -2.0}) == ""
    assert "sync_certainty is 0.2" in prepare.unsuitable({"face_px": 80.0, "sync_certainty": 0.2})
