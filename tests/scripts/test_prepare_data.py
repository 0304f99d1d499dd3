"""scripts/stages/prepare_data.py: the synthetic speakers, and what the manifest says of a clip."""

import json

import numpy as np
import pytest
import torch
from drawn_videos import turned_by_a_phone

from encoders.footage.video_reader import iter_frames, read_audio
from encoders.footage.video_writer import write_video
from scripts.core import runtime
from scripts.stages import prepare_data


@pytest.mark.parametrize("native", [True, False])
def test_a_corpus_in_bfloat16_has_a_folder_of_its_own(tmp_path, monkeypatch, capsys, native):
    """A CPU that would emulate bfloat16 renders in float32 all the same."""
    made = {}

    def build(config, generator, basis, folder, workers):
        made[folder] = generator.half
        folder.mkdir(parents=True)
        (folder / "corpus.json").write_text(json.dumps({"clips": []}))

    monkeypatch.setattr(prepare_data, "build_corpus", build)
    monkeypatch.setattr(prepare_data, "computes_bfloat16", lambda: native)
    for precision in ("32-true", "bf16-mixed"):
        raw = runtime.compose([f"precision={precision}", f"results_dir={tmp_path}", f"data_dir={tmp_path}"])
        config = runtime.resolve(raw)
        prepare_data.embedded_videos(config, runtime.start(config, quiet=True))
    assert list(made.values()) == ([None, torch.bfloat16] if native else [None])
    assert ("rendered in bfloat16" in capsys.readouterr().out) == native


def test_the_manifest_says_what_was_done_to_a_video(clip_folder, tmp_path, capsys):
    source, folder = next(clip_folder.rglob("*.mp4")), tmp_path / "clips"
    folder.mkdir()
    write_video(folder / "a.mp4", (np.rot90(frame) for frame in iter_frames(source)), read_audio(source))
    turned_by_a_phone(folder / "a.mp4", 0, 1, -1, 0)
    words = ["data=folder", f"data.root={folder}", "data.unseen=0", "workers=1", "prepare.sync=none"]
    where = [f"results_dir={tmp_path / 'r'}", f"data_dir={tmp_path / 'd'}"]
    config = runtime.resolve(runtime.compose([*words, *where]))
    for _ in range(2):  # the second time the clip is read from its file
        prepared = prepare_data.prepare_data(config, runtime.start(config))
        assert [entry.reading for entry in prepared.manifest.ok()] == ["turned by 90 degrees clockwise"]
        assert "1 clips: turned by 90 degrees clockwise" in capsys.readouterr().out
        (prepared.folder / "manifest.json").unlink()
