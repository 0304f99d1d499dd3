"""scripts/train_sync.py: from prepared clips to the sync network that evaluate.py loads; resuming; refused requests."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise_bursts

from encoders.features.mouth_crop import load_sync
from encoders.manifest import ClipEntry, Manifest, write_manifest
from encoders.records import FrameClip
from metrics.measures.sync_distance import OURS, OwnSync, clip_figures, load_judge
from scripts.core import runtime
from scripts.stages.train_sync import train_sync

pytestmark = pytest.mark.usefixtures("one_thread")
FRAMES = 24


def prepared(folder: Path, splits: tuple[str, ...]) -> Path:
    """Clips with a dark bar in the mouth region whose height follows the loudness of the sound."""
    entries = []
    for seed, split in enumerate(splits):
        waveform = noise_bursts(FRAMES, seed).samples
        level = np.sqrt((waveform.reshape(FRAMES, -1) ** 2).mean(axis=1))
        frames = np.full((FRAMES, 256, 256, 3), 100, np.uint8)
        for t, wide in enumerate((200 * level).round().astype(int)):
            frames[t, 192 - wide : 192 + wide, 108:148] = 20
        points, quads = np.zeros((FRAMES, 68, 2), np.float32), np.zeros((FRAMES, 4, 2), np.float32)
        known = np.ones(FRAMES, bool)
        name, arrays = f"s{seed}", (frames, points, quads, known, waveform)
        FrameClip(name, name, "words", split, "x.mp4", "0", *arrays).save(folder / f"{name}.safetensors")
        entries.append(ClipEntry(name, f"{name}.safetensors", name, "words", split, FRAMES))
    write_manifest(folder, Manifest(tuple(entries), {"detector": "none"}))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return prepared(tmp_path_factory.mktemp("clips, [1] a=b"), ("train", "train", "val", "seen", "unseen"))


def run(clips: Path, results: Path, *more: str) -> int:
    sizes = ("channels=[8,8,8,16]", "dim=16", "n_mels=20")
    settings = (f"folders=['{clips}']", f"held={clips}", "clips=2", "windows=16", "save_every=2")
    arguments = [f"sync_net.{size}" for size in sizes] + [f"sync_train.{setting}" for setting in settings]
    return runtime.attempt(
        train_sync, runtime.compose([*arguments, f"results_dir={results}", "name=run", *more])
    )


def test_clips_train_a_network_that_evaluates_and_a_run_resumes(clips, tmp_path, capsys):
    assert run(clips, tmp_path, "sync_train.steps=4") == 0
    folder = tmp_path / "run" / "sync"
    accuracy = json.loads((folder / "accuracy.json").read_text())
    assert accuracy["held_out_clips"] == 2 and set(accuracy["late"]) == {"5", "-5"}
    assert 0 <= accuracy["in_sync"]["found"] <= 1 and "found within one frame on 2" in capsys.readouterr().out
    assert json.loads((folder / "run.json").read_text())["weights"]["sync"]

    path = folder / "sync.safetensors"
    judge, absent = load_judge("own", str(path))
    assert isinstance(judge, OwnSync) and not absent and judge.net.sizes.dim == 16
    watch = judge.video_embedder()
    for frame in np.asarray(FrameClip.load(clips / "s3.safetensors").frames):
        watch.add(frame)
    heard = judge.embed_sound(noise_bursts(FRAMES, 3), FRAMES)
    assert set(clip_figures(judge, watch.embeddings(), heard)) == set(OURS)

    # The same command changes nothing; with more steps it resumes from the fourth.
    before = load_sync(path).state_dict()
    assert run(clips, tmp_path, "sync_train.steps=4") == 0
    assert all(torch.equal(value, before[key]) for key, value in load_sync(path).state_dict().items())
    assert run(clips, tmp_path, "sync_train.steps=6") == 0
    out = capsys.readouterr().out
    assert "step 6:" in out and "step 2:" not in out
    steps = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
    assert steps == 6 and load_sync(path).sizes.channels == (8, 8, 8, 16)


def test_missing_clips_and_bad_checkpoints_are_refused(clips, tmp_path, capsys):
    alone = prepared(tmp_path / "alone", ("train",))
    assert run(alone, tmp_path) == 1
    assert "0 held out" in capsys.readouterr().err
    assert run(clips, tmp_path, "resume=gone.pt") == 1
    assert "no checkpoint gone.pt" in capsys.readouterr().err
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04")
    assert run(clips, tmp_path, f"resume={tmp_path / 'broken.pt'}") == 1
    assert "broken.pt is no checkpoint of this sync network" in capsys.readouterr().err
    assert not (tmp_path / "run" / "sync" / "sync.safetensors").exists()
