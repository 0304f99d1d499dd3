"""Which frames say who a speaker is: of a clip that is not tested, and of the part of it that is never scored."""

import numpy as np

from audio.timing import SAMPLES_PER_FRAME
from encoders.clips import ClipEntry, FrameClip
from scripts.invert_frames import portrait_clip, portrait_frames
from scripts.runtime import compose, resolve

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


def test_a_portrait_spans_the_opening_of_the_lips_and_leaves_out_what_is_scored() -> None:
    config = resolve(compose(["target.share=0.6", "encoder.inversion.person_frames=3"]))
    openings = np.random.default_rng(0).permutation(FRAMES).astype(np.float32)
    openings[15] = 99  # widest of all, but in the part that is scored
    detected = np.ones(FRAMES, bool)
    detected[int(openings[:12].argmax())] = False
    chosen = portrait_frames(talking(openings, detected), config)[:, 0, 0, 0]
    allowed = np.flatnonzero(detected[:12])
    assert len(chosen) == 3 and set(chosen) <= set(allowed)
    assert openings[chosen].min() == openings[allowed].min()
    assert openings[chosen].max() == openings[allowed].max()


def test_a_portrait_of_a_clip_with_hardly_a_face_is_what_there_is() -> None:
    config = resolve(compose([]))
    detected = np.zeros(FRAMES, bool)
    assert len(portrait_frames(talking(np.zeros(FRAMES), detected), config)) == 1
    detected[4] = True
    assert portrait_frames(talking(np.zeros(FRAMES), detected), config)[:, 0, 0, 0].tolist() == [4]


def test_a_speaker_s_portrait_comes_from_a_training_clip_if_there_is_one() -> None:
    def entry(name: str, speaker: str, split: str) -> ClipEntry:
        return ClipEntry(name, f"{name}.safetensors", speaker, name, split, 10)

    entries = [entry("a", "x", "seen"), entry("b", "x", "train"), entry("c", "y", "unseen")]
    assert portrait_clip(entries, "x") == (entries[1], False)
    assert portrait_clip(entries, "y") == (entries[2], True)
