"""FrameClip and LatentClip are read back unchanged, and broken files raise ClipError."""

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from encoders.jpeg_frames import ClipError, JpegFrames
from encoders.records import FrameClip, LatentClip

T, SIZE = 5, 48


def pictures():
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack([np.stack([4 * x, 4 * y, np.full_like(x, 40 * t)], axis=-1) for t in range(T)]).astype(
        np.uint8
    )


def frame_clip(**changes):
    rng = np.random.default_rng(0)
    fields = {
        "name": "s1/bbaf2n",
        "speaker": "s1",
        "sentence": "bbaf2n",
        "split": "train",
        "source": "bbaf2n.mpg",
        "source_hash": "ab" * 32,
        "frames": JpegFrames.encode(pictures()),
        "landmarks": rng.normal(size=(T, 68, 2)).astype(np.float32),
        "quads": rng.normal(size=(T, 4, 2)).astype(np.float32),
        "detected": np.array([True, False, True, True, True]),
        "waveform": rng.normal(size=T * 640).astype(np.float32),
    }
    return FrameClip(**{**fields, **changes})


def latent_clip(**changes):
    rng = np.random.default_rng(1)
    w = rng.normal(size=(T, 14, 8))
    fields = dict.fromkeys(
        ("name", "speaker", "sentence", "clip_hash", "generator_hash", "encoder_hash"), "x"
    )
    fields |= {"split": "val", "w": w.astype(np.float16), "w_ref": w[2].astype(np.float32), "ref_index": 2}
    return LatentClip(**{**fields, **changes})


def same(a, b):
    for field in dataclasses.fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


def test_frame_clip_round_trip(tmp_path):
    clip = frame_clip()
    path = tmp_path / "a clip [x=1].safetensors"
    clip.save(path)
    loaded = FrameClip.load(path)
    same(clip, loaded)
    assert loaded.content_hash() == clip.content_hash()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    clip.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_frames_given_as_an_array_are_stored_almost_exactly(tmp_path):
    frame_clip(frames=pictures()).save(tmp_path / "a.safetensors")
    error = np.asarray(FrameClip.load(tmp_path / "a.safetensors").frames).astype(int) - pictures()
    assert np.abs(error).max() <= 6 and np.abs(error).mean() < 1


def test_latent_clip_round_trip(tmp_path):
    clip = latent_clip()
    clip.save(tmp_path / "l.safetensors")
    same(clip, LatentClip.load(tmp_path / "l.safetensors"))


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (frame_clip, {"split": "test"}, "split 'test'"),
        (frame_clip, {"fps": 30}, "30 frames per second"),
        (frame_clip, {"waveform": np.zeros(T * 640 - 1, np.float32)}, r"waveform must be float32 \(3200,\)"),
        (frame_clip, {"landmarks": np.zeros((T, 68, 2))}, "landmarks must be float32"),
        (frame_clip, {"landmarks": np.full((T, 68, 2), np.nan, np.float32)}, "not finite"),
        (frame_clip, {"frames": pictures()[:, :, :40]}, "frames must be uint8"),
        (latent_clip, {"ref_index": T}, "identity frame 5"),
        (latent_clip, {"w": np.full((T, 14, 8), np.inf, np.float16)}, "w holds values that are not finite"),
        (latent_clip, {"w_ref": np.zeros((13, 8), np.float32)}, "w_ref must be"),
    ],
)
def test_inconsistent_records_are_refused(make, changes, message):
    with pytest.raises(ClipError, match=message):
        make(**changes)


def valid_tensors(clip):
    jpegs = clip.frames
    return {
        "jpeg": jpegs.data,
        "offsets": jpegs.offsets,
        **{key: getattr(clip, key) for key in ("landmarks", "quads", "detected", "waveform")},
    }


def with_record(path, tensors, **changes):
    texts = ("name", "speaker", "sentence", "split", "source", "source_hash")
    record = {
        "kind": "frame-clip",
        "fps": 25,
        **{key: getattr(frame_clip(), key) for key in texts},
        **changes,
    }
    save_file(tensors, path, metadata={"record": json.dumps(record)})


def damaged_files(folder):
    """name -> path of files that must all be refused."""
    good = valid_tensors(frame_clip())
    frame_clip().save(folder / "good.safetensors")
    intact = (folder / "good.safetensors").read_bytes()
    raw = {
        "empty": b"",
        "text": b"this is no clip\n" * 20,
        "cut": intact[: len(intact) // 2],
        "cut in the header": intact[:40],
        "long header": struct.pack("<Q", 2**62) + intact[8:],
        "pickle": b"\x80\x04\x95",
    }
    for name, content in raw.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    save_file(good, folder / "no record.safetensors")
    save_file(good, folder / "broken record.safetensors", metadata={"record": "{"})
    save_file(good, folder / "deep record.safetensors", metadata={"record": "[" * 100_000})
    latent_clip().save(folder / "latents.safetensors")
    with_record(folder / "unknown field.safetensors", good, surprise="x")
    with_record(folder / "nested field.safetensors", good, name=["x"])
    with_record(folder / "fps text.safetensors", good, fps="25")
    wrong = {
        "missing": {key: value for key, value in good.items() if key != "quads"},
        "offsets beyond": {**good, "offsets": good["offsets"] * 1000},
        "offsets back": {**good, "offsets": good["offsets"][::-1].copy()},
        "offsets negative": {**good, "offsets": np.array([0, -5, 9, 12, 13, len(good["jpeg"])])},
        "offsets float": {**good, "offsets": good["offsets"].astype(np.float64)},
        "no jpeg": {**good, "jpeg": np.zeros_like(good["jpeg"])},
        "no frame": {**good, "offsets": np.zeros(1, np.int64), "jpeg": np.zeros(0, np.uint8)},
        "other length": {**good, "detected": good["detected"][:3].copy()},
    }
    for name, tensors in wrong.items():
        with_record(folder / f"{name}.safetensors", tensors)
    return sorted(path for path in folder.iterdir() if path.name != "good.safetensors")


def test_damaged_and_hostile_files_are_named(tmp_path):
    paths = damaged_files(tmp_path)
    assert len(paths) > 18
    for path in paths:
        with pytest.raises(ClipError, match=r"\.safetensors") as caught:
            FrameClip.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ClipError, match="no latent-clip"):
        LatentClip.load(tmp_path / "good.safetensors")
    with pytest.raises(ClipError, match="there is no file"):
        FrameClip.load(tmp_path / "absent.safetensors")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    frame_clip().save(path)
    before = path.read_bytes()

    def fail(tensors, filename, metadata):
        Path(filename).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("encoders.records.save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        frame_clip(name="other").save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_clip_hash_is_of_the_content_only():
    clip = frame_clip()
    assert frame_clip(name="other", speaker="s9", split="val").content_hash() == clip.content_hash()
    assert frame_clip(waveform=np.zeros(T * 640, np.float32)).content_hash() != clip.content_hash()
