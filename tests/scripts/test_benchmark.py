"""scripts/benchmark.py writes every part of its file with finite figures."""

import json
import math
import subprocess
from typing import Any

import numpy as np
import pytest
import torch

from configs.schema import BenchmarkConfig
from scripts.core import cpu, runtime
from scripts.stages import benchmark
from stylegan2.networks.generator import StyleGAN2

TINY = ["experiment=smoke", "encoder=plain", "encoder.inversion.person.steps=0", "benchmark.sizes=[32]",
        "benchmark.step_size=32", "benchmark.min_seconds=1e-4", "benchmark.threads=[1]", "benchmark.clip_seconds=0.16", "benchmark.stream_seconds=0.4",
        "encoder_full.side=64", "encoder_full.head_width=16", "encoder_full.widths=[8,8,8,16,16]",
        "encoder_full.depths=[1,1,2,1]", "device=cpu"]  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_stylegan2(monkeypatch):
    """Config F with 8 channels instead of up to 512, and bfloat16 on every CPU."""

    def config_f(resolution, run):
        torch.manual_seed(0)
        return StyleGAN2(resolution, channels={4 * 2**k: 8 for k in range(4)}).requires_grad_(False)

    monkeypatch.setattr(benchmark, "config_f", config_f)
    monkeypatch.setattr(cpu, "cpu_field", lambda name: "avx512_bf16")


def measured(tmp_path, *arguments):
    output = tmp_path / "speed.json"
    raw = runtime.compose([*TINY, f"output={output}", f"results_dir={tmp_path}", *arguments])
    assert runtime.attempt(benchmark.benchmark, raw) == 0
    return json.loads(output.read_text())


def test_all_parts_are_measured(tmp_path, capsys):
    content = measured(tmp_path)
    assert {"cpu", "device", "versions"} <= set(content)
    config_f, config_f_bf16, embedded, _ = content["synthesis"]
    assert config_f["generator"] == "config F, 32 px" and config_f["precision"] == "float32"
    assert config_f["threads"] == 1 and config_f["frames_per_s"] > 0
    assert math.isfinite(config_f["ratio_to_reference"]) and config_f["ratio_to_reference"] > 0
    assert config_f["snr_db"] > 80
    assert config_f_bf16["precision"] == "bfloat16" and 20 < config_f_bf16["snr_db"] < 80
    assert embedded["generator"] == "embedded" and embedded["ratio_to_reference"] is None
    assert [row["encoder"] for row in content["encoder"]] == ["embedded", "full e4e"]
    assert all(row["images_per_s"] > 0 for row in content["encoder"])
    assert [row["precision"] for row in content["tuning_step"]] == ["float32", "bfloat16"]
    assert all(row["seconds"] > 0 and row["ratio_to_reference"] > 0 for row in content["tuning_step"])
    assert [row["image_term"] for row in content["stage1_step"]] == [False, True]
    (video,) = content["end_to_end"]
    assert 0 < video["real_time_factor"] < video["real_time_factor_with_face"]
    parts = ("load", "face", "inversion", "features", "trajectory", "synthesis", "video")
    total = sum(video[f"{part}_seconds"] for part in parts)
    assert total == pytest.approx(video["real_time_factor_with_face"] * video["clip_seconds"])
    live, live_bf16 = content["streaming"]
    assert (live["precision"], live_bf16["precision"]) == ("float32", "bfloat16")
    assert live["frames_per_s"] > 0 and live["seconds"] == 0.4
    assert (
        live["first_frame_s"] > 0.16 and live["worst_gap_s"] > 0.04
    )  # the sound of the first chunk, and two chunks
    shown = capsys.readouterr().out
    assert all(f"measuring {part}" in shown for part in ("synthesis", "encoder", "end_to_end"))


def test_what_chooses_one_part_and_the_timed_clip_moves(tmp_path, monkeypatch):
    """Equal codes are rendered only once, so a still clip would be measured as too fast."""
    rendered = []
    render = benchmark.render
    monkeypatch.setattr(benchmark, "render", lambda generator, w: rendered.append(w) or render(generator, w))
    content = measured(tmp_path, "what=end_to_end")
    assert "end_to_end" in content and "synthesis" not in content
    w_TLD = rendered[-1]
    assert len(w_TLD) == 4 and all(np.abs(np.diff(w_TLD, axis=0)).max((1, 2)) > 1e-4)


def test_a_copy_without_tests_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "REFERENCE", tmp_path / "absent.py")
    raw = runtime.compose([*TINY, f"output={tmp_path / 'speed.json'}", f"results_dir={tmp_path}"])
    assert runtime.attempt(benchmark.benchmark, raw) == 1
    assert "absent.py" in capsys.readouterr().err and not (tmp_path / "speed.json").exists()


def test_bfloat16_is_left_out_where_the_cpu_lacks_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cpu, "cpu_field", lambda name: "avx2 fma")
    content = measured(tmp_path, "what=synthesis")
    assert {row["precision"] for row in content["synthesis"]} == {"float32"}
    assert "bfloat16 is not measured" in capsys.readouterr().out


def test_busy_processes_run_beside_and_end(tmp_path, monkeypatch):
    started: list[Any] = []
    popen = subprocess.Popen

    def recorded(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        return started[-1]

    def encoder(config, run):
        assert [process.poll() for process in started] == [None, None]
        return [{"seconds": 1.0}]

    monkeypatch.setattr(benchmark.subprocess, "Popen", recorded)
    monkeypatch.setattr(benchmark, "encoder", encoder)
    with benchmark.busy_processes(2):
        encoder(None, None)
    assert all(process.poll() is not None for process in started)
    started.clear()
    monkeypatch.setattr(benchmark, "provenance", dict)  # asks git, through Popen too
    assert measured(tmp_path, "what=encoder", "benchmark.beside=2")["beside"] == 2
    with pytest.raises(ValueError, match="cannot be negative"):
        BenchmarkConfig(beside=-1)
