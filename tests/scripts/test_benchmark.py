"""scripts/benchmark.py: its file has every part, its figures are finite, and what is null says why."""

import json
import math
import sys
import types

import numpy as np
import pytest
import torch

from scripts.core import runtime
from scripts.stages import benchmark, step_speed, synthesis_speed
from scripts.stages import benchmark_timing as timing
from stylegan2.networks.generator import StyleGAN2

TINY = ["experiment=smoke", "encoder=plain", "encoder.inversion.person_steps=0", "benchmark.sizes=[32]", "benchmark.step_size=32", "benchmark.repeats=1",
        "benchmark.threads=[1]", "benchmark.allocators=[tuned]", "benchmark.full_encoder=false",
        "benchmark.clip_seconds=0.16", "device=cpu"]  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small(monkeypatch):
    """A config F with few channels, and a peak of small matrices."""

    def a_generator(resolution, device):
        torch.manual_seed(0)
        return (
            StyleGAN2(resolution, channels={4 * 2**k: 8 for k in range(4)}).to(device).requires_grad_(False)
        )

    monkeypatch.setattr(synthesis_speed, "a_generator", a_generator)
    monkeypatch.setattr(step_speed, "a_generator", a_generator)
    monkeypatch.setattr(timing, "PEAK_SIDE", 64)


def measured(tmp_path, *arguments):
    output = tmp_path / "speed.json"
    raw = runtime.compose([*TINY, f"output={output}", f"results_dir={tmp_path}", *arguments])
    assert runtime.attempt(benchmark.benchmark, raw) == 0
    return json.loads(output.read_text())


def test_all_parts_are_measured(tmp_path, small, capsys):
    content = measured(tmp_path)
    assert {
        "machine",
        "versions",
        "peak",
        "synthesis",
        "encoder",
        "tuning_step",
        "stage1_step",
        "end_to_end",
    } <= set(content)
    assert content["machine"]["cpu"] and content["machine"]["instruction_sets"]
    assert content["peak"][0]["gflops"] > 0
    ours = {r["generator"]: r for r in content["synthesis"] if r["precision"] == "float32"}
    row = ours["config_f"]
    assert (
        row["frames_per_s"] > 0 and math.isfinite(row["ratio_to_reference"]) and row["ratio_to_reference"] > 0
    )
    assert row["max_abs"] < 1e-4 and row["share_of_peak"] > 0
    assert (row["resolution"], row["batch"], row["threads"], row["allocator"]) == (32, 1, 1, "tuned")
    assert ours["embedded"]["resolution"] == 256 and ours["embedded"]["ratio_to_reference"] is None
    for row in content["synthesis"]:
        for key in ("frames_per_s", "ratio_to_reference", "ratio_to_peer"):
            assert row[key] is not None or row["reasons"].get(key) or row["reasons"].get("frames_per_s"), key
    assert content["encoder"][0]["images_per_s"] > 0
    assert math.isfinite(content["tuning_step"][0]["ratio_to_reference"])
    assert [r["image_term"] for r in content["stage1_step"]] == [False, True]
    assert content["end_to_end"]["real_time_factor"] > 0
    assert set(content["end_to_end"]["seconds_of_the_clip"]) == {
        "features",
        "trajectory",
        "synthesis",
        "video",
    }
    assert "synthesis" in capsys.readouterr().out


def test_a_part_alone_with_a_peer_and_half_the_precision(tmp_path, small, monkeypatch):
    """The peer is a stand-in with its interface: the package itself compiles CUDA code when it is imported."""

    class Generator(torch.nn.Module):
        def __init__(self, resolution):
            super().__init__()
            self.resolution = resolution

        def forward(self, inputs, input_type):
            assert input_type == "w_plus" and inputs[0].shape == (1, 8, 512)
            return torch.zeros(1, 3, self.resolution, self.resolution)

    package = types.ModuleType("stylegan2_torch")
    package.Generator = Generator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stylegan2_torch", package)
    monkeypatch.setattr(synthesis_speed, "refusal", lambda precision, device: None)
    content = measured(tmp_path, "what=synthesis", "benchmark.embedded=false")
    assert "encoder" not in content and "end_to_end" not in content
    whole, half = content["synthesis"]
    assert whole["ratio_to_peer"] > 0 and (half["precision"], half["max_abs"]) == ("bfloat16", None)
    assert half["snr_db"] > 20


def test_the_clip_that_is_timed_moves(tmp_path, monkeypatch):
    """Frames of one and the same code are rendered once, which took a twentieth of the time."""
    seen = []
    plain = step_speed.render
    monkeypatch.setattr(step_speed, "render", lambda generator, w: seen.append(w) or plain(generator, w))
    measured(tmp_path, "what=end_to_end")
    w_TLD = seen[-1]
    assert len(w_TLD) == 4 and all(np.abs(np.diff(w_TLD, axis=0)).max((1, 2)) > 1e-4)


def test_a_copy_without_tests_is_told_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(synthesis_speed, "ORACLE", tmp_path / "absent.py")
    synthesis_speed.reference.cache_clear()
    raw = runtime.compose([*TINY, f"output={tmp_path / 'speed.json'}", f"results_dir={tmp_path}"])
    assert runtime.attempt(benchmark.benchmark, raw) == 1
    assert "absent.py" in capsys.readouterr().err and not (tmp_path / "speed.json").exists()


def test_precisions_without_instructions_are_refused_with_the_reason(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(timing, "instruction_sets", lambda: ["avx2", "fma"])
    assert timing.refusal("float32", cpu) is None
    assert "bfloat16" in str(timing.refusal("bfloat16", cpu))
    monkeypatch.setattr(timing, "instruction_sets", lambda: ["avx2", "avx512_bf16"])
    assert timing.refusal("bfloat16", cpu) is None


def test_counted_operations_are_the_published_ones():
    """Config F at 256 px: 90.7 GFLOP in convolutions and matrix products (plus the FIR filters, counted here too)."""
    generator = synthesis_speed.a_generator(256, torch.device("cpu"))
    work = synthesis_speed.nominal_operations(generator, torch.zeros(1, 14, 512))
    assert 90.7e9 < work < 92.5e9
