"""Frames that define a speaker's identity: from a clip that is not scored, or from the part of it that is not
scored.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lightning_fabric import Fabric

from audio.timing import SAMPLES_PER_FRAME
from encoders.manifest import ClipEntry, Manifest, read_manifest, write_manifest
from encoders.records import FrameClip, LatentClip
from scripts.core.runtime import Run, compose, resolve
from scripts.stages import invert_frames as stage
from scripts.stages.identity_frames import portrait_clip, portrait_frames, reference_frame
from scripts.stages.stage_results import Latents, Prepared
from trajectory.model.displacement import DisplacementConfig

FRAMES = 20


def talking(openings: np.ndarray, detected: np.ndarray) -> FrameClip:
    """Frame t is uniformly grey of level t; its lips are openings[t] px apart."""
    landmarks = np.zeros((FRAMES, 68, 2), np.float32)
    landmarks[:, 36:42, 0], landmarks[:, 42:48, 0] = 80, 180
    landmarks[:, 66, 1] = openings
    frames = np.repeat(np.arange(FRAMES, dtype=np.uint8), 256 * 256 * 3).reshape(FRAMES, 256, 256, 3)
    return FrameClip(
        name="s/one",
        speaker="s",
        sentence="one",
        split="train",
        source="one.mp4",
        source_hash="0" * 64,
        frames=frames,
        landmarks=landmarks,
        quads=np.zeros((FRAMES, 4, 2), np.float32),
        detected=detected,
        waveform=np.zeros(FRAMES * SAMPLES_PER_FRAME, np.float32),
    )


def test_a_portrait_spans_the_lip_opening_and_leaves_out_scored_frames() -> None:
    config = resolve(compose(["target.share=0.6", "encoder.inversion.person.frames=3"]))
    openings = np.random.default_rng(0).permutation(FRAMES).astype(np.float32)
    openings[15] = 99  # the widest opening, but in the scored part
    detected = np.ones(FRAMES, bool)
    detected[int(openings[:12].argmax())] = False
    chosen = portrait_frames(talking(openings, detected), config).frames[:, 0, 0, 0]
    allowed = np.flatnonzero(detected[:12])
    assert len(chosen) == 3 and set(chosen) <= set(allowed)
    assert openings[chosen].min() == openings[allowed].min()
    assert openings[chosen].max() == openings[allowed].max()


def test_a_portrait_has_fewer_frames_if_few_faces_are_detected() -> None:
    config = resolve(compose([]))
    detected = np.zeros(FRAMES, bool)
    assert len(portrait_frames(talking(np.zeros(FRAMES), detected), config).frames) == 1
    detected[4] = True
    assert portrait_frames(talking(np.zeros(FRAMES), detected), config).frames[:, 0, 0, 0].tolist() == [4]


def test_a_speaker_s_portrait_comes_from_a_training_clip_if_there_is_one() -> None:
    def entry(name: str, speaker: str, split: str) -> ClipEntry:
        return ClipEntry(name, f"{name}.safetensors", speaker, name, split, 10)

    entries = [entry("a", "x", "seen"), entry("b", "x", "train"), entry("c", "y", "unseen")]
    assert portrait_clip(entries, "x") == (entries[1], False)
    assert portrait_clip(entries, "y") == (entries[2], True)


def test_the_identity_frame_follows_the_setting() -> None:
    openings = np.random.default_rng(0).permutation(FRAMES).astype(np.float32)
    detected = np.ones(FRAMES, bool)
    detected[[0, 1, int(openings.argmin())]] = False
    clip = talking(openings, detected)
    allowed = np.flatnonzero(detected)
    assert reference_frame(clip, DisplacementConfig()) == allowed[openings[allowed].argmin()]
    assert reference_frame(clip, DisplacementConfig(reference="first")) == 2
    drawn = [
        reference_frame(clip, DisplacementConfig(reference="random", reference_seed=s)) for s in range(9)
    ]
    assert len(set(drawn)) > 3 and set(drawn) <= set(allowed)
    assert drawn[4] == reference_frame(clip, DisplacementConfig(reference="random", reference_seed=4))
    renamed = replace(clip, name="s/two")
    assert any(
        reference_frame(renamed, DisplacementConfig(reference="random", reference_seed=s)) != drawn[s]
        for s in range(9)
    )
    assert reference_frame(clip, DisplacementConfig(reference="random"), before=3) == 2
    assert (
        reference_frame(talking(openings, np.zeros(FRAMES, bool)), DisplacementConfig(reference="first")) == 0
    )


def test_other_identity_frames_need_no_new_inversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detected = np.arange(FRAMES) > 6
    clip = talking(np.zeros(FRAMES, np.float32), detected)
    clip.save(tmp_path / "prepared" / "one.safetensors")
    w = np.random.default_rng(0).standard_normal((FRAMES, 3, 8)).astype(np.float16)
    about = ("s/one", "s", "one", "train")
    codes = LatentClip(*about, w, w[9].astype(np.float32), 9, "a" * 64, "b" * 64, "c" * 64)
    codes.save(tmp_path / "latents" / "one.safetensors")
    entry = ClipEntry("s/one", "one.safetensors", "s", "one", "train", FRAMES)
    write_manifest(tmp_path / "latents", Manifest((entry,), {"prepared": "prepared"}))
    latents, prepared = Latents(tmp_path / "latents", tmp_path / "prepared"), Prepared(tmp_path / "prepared")
    monkeypatch.setattr(stage, "_inverted", lambda config, run, prepared: latents)
    run = Run(tmp_path / "results", tmp_path, Fabric(accelerator="cpu", devices=1))
    assert stage.invert_frames(resolve(compose()), run, prepared) == latents
    folder = stage.invert_frames(resolve(compose(["displacement.reference=first"])), run, prepared).folder
    codes_of_first = LatentClip.load(folder / "one.safetensors")
    assert folder != tmp_path / "latents" and read_manifest(folder) == read_manifest(tmp_path / "latents")
    assert (
        codes_of_first.ref_index == 7
        and np.array_equal(codes_of_first.w, w)
        and np.array_equal(codes_of_first.w_ref, w[7])
    )
