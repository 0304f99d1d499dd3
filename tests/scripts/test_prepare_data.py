"""scripts/stages/prepare_data.py: the synthetic speakers."""

import json

import pytest
import torch

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
