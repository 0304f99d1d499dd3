"""The manifest is read back unchanged, and errors name broken files."""

import json

import pytest

from encoders.jpeg_frames import ClipError
from encoders.manifest import ClipEntry, Manifest, read_manifest, write_manifest


def entries():
    return (
        ClipEntry("a", "s1/a.safetensors", "s1", "a", "train", 75),
        ClipEntry("b", "s1/b.safetensors", "s1", "b", "seen", 74),
        ClipEntry("c", "", "s2", "c", "unseen", 0, "rejected", "c.mp4 shows no face; é"),
    )


def test_manifest_round_trip(tmp_path):
    manifest = Manifest(entries(), {"config": {"size": 256}})
    path = write_manifest(tmp_path, manifest)
    assert path == tmp_path / "manifest.json"
    assert read_manifest(tmp_path) == read_manifest(path) == manifest
    assert [clip.name for clip in manifest.ok()] == ["a", "b"]
    assert [clip.name for clip in manifest.ok("seen", "unseen")] == ["b"]
    assert [clip.reason for clip in manifest.rejected()] == ["c.mp4 shows no face; é"]
    assert set(json.loads(path.read_text("utf-8"))) == {"clips", "config"}


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "3", "{", '{"clips": 5}', '{"clips": [{"name": "a"}]}', '{"notes": 1}', "[" * 50_000,
        '{"clips": [{"name":"a","file":"../x","speaker":"s","sentence":"t","split":"train","n_frames":1}]}',
        '{"clips": [{"name":"a","file":"/etc/x","speaker":"s","sentence":"t","split":"train","n_frames":1}]}',
        '{"clips": [{"name":"a","file":"x","speaker":"s","sentence":"t","split":"half","n_frames":1}]}',
        '{"clips": [{"name":"a","file":"x","speaker":"s","sentence":"t","split":"val","n_frames":1,"status":"?"}]}',
        '{"clips": [{"name":"a","file":7,"speaker":"s","sentence":"t","split":"val","n_frames":1}]}',
    ],
)  # fmt: skip
def test_broken_manifests_are_named(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ClipError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_missing_manifest(tmp_path):
    with pytest.raises(ClipError, match="there is no manifest"):
        read_manifest(tmp_path)
