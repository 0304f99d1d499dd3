"""Stage 1 in processes that are killed, and in two that share a batch."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_stage1 import parts, parts_of_processes

from encoders.manifest import read_manifest
from encoders.records import LatentClip
from scripts.core import runtime
from scripts.stages.standalone import invert_frames_alone
from trajectory.training.stage1_loop import train

HERE = Path(__file__).resolve()
PATHS = f"""
import sys
sys.path[:0] = [{str(HERE.parents[2])!r}, {str(HERE.parents[1])!r}]
import torch
torch.set_num_threads(1)
from pathlib import Path
"""

pytestmark = pytest.mark.usefixtures("one_thread")


def run_script(text: str, folder: Path, *launcher: str) -> None:
    path = folder / "script.py"
    path.write_text(PATHS + textwrap.dedent(text), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *launcher, str(path), str(folder)], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-3000:]


# The parent only imports; each child resumes training and is killed at a random moment, also while it saves.
KILLED = """
import os, random, signal, time
from toy_stage1 import parts
from trajectory.training.stage1_loop import train
folder, moments, steps = Path(sys.argv[1]), random.Random(0), []
for attempt in range(20):
    child = os.fork()
    if child == 0:
        train(**parts(folder, steps=100000, save_every=1), folder=folder / "killed")
        os._exit(1)
    before, checkpoint = (steps or [0])[-1], folder / "killed" / "state.pt"
    deadline = time.monotonic() + 120
    age = lambda: checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    first = age()
    while age() == first and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(moments.uniform(0, 0.5))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    steps.append(torch.load(checkpoint, weights_only=True)["step"])
assert steps == sorted(steps) and steps[-1] > steps[0], steps
"""


@pytest.mark.slow
def test_killed_twenty_times_is_bit_identical(tmp_path):
    run_script(KILLED, tmp_path)
    reached = torch.load(tmp_path / "killed" / "state.pt", weights_only=True)["step"]
    settings: dict[str, Any] = {"steps": 100000, "save_every": 1}
    resumed = train(**parts(tmp_path, **settings), folder=tmp_path / "killed", stop_at=reached + 3)
    settings["save_every"] = 100000
    uninterrupted = train(**parts(tmp_path, **settings), folder=tmp_path / "whole", stop_at=reached + 3)
    assert reached >= 20
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


SHARED = """
from lightning_fabric import Fabric
from toy_stage1 import parts_of_processes
from trajectory.training.stage1_loop import train
folder = Path(sys.argv[1])
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
assert fabric.world_size == 2
train(**parts_of_processes(folder / f"data{fabric.global_rank}", 2), folder=folder / "two", fabric=fabric, stop_at=8)
fabric.barrier()
train(**parts_of_processes(folder / f"data{fabric.global_rank}", 2), folder=folder / "two", fabric=fabric)
"""


@pytest.mark.slow
def test_two_processes_are_one_with_the_same_batch(tmp_path):
    """gloo on the CPU, launched by torchrun; stopped and resumed on the way."""
    run_script(SHARED, tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    train(**parts_of_processes(tmp_path / "data", 4), folder=tmp_path / "one")
    one, two = (torch.load(tmp_path / run / "state.pt", weights_only=True) for run in ("one", "two"))
    best, other_best = one["progress"], two["progress"]
    assert one["step"] == two["step"] == 12
    assert best["best_score"] == pytest.approx(other_best["best_score"], abs=1e-5)
    for one_part, two_part in (
        (one["net"], two["net"]),
        (one["ema"], two["ema"]),
        (best["best"], other_best["best"]),
    ):
        for name, value in one_part.items():
            assert torch.allclose(value, two_part[name], atol=1e-5), name
    assert (tmp_path / "two" / "trajectory.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_prepare_and_invert_what_one_does(clip_folder, tmp_path):
    """Each process handles its share of the clips; manifest and codes equal those of a single process, and both train
    stage 1.
    """
    arguments = ["experiment=smoke", "data=folder", f"data.root={clip_folder}", "workers=1", "threads=1"]
    arguments += ["data.seen=0.0", "data.validation=0.0", "device=cpu", "losses.image=0", "losses.lip=0"]
    places = [f"results_dir={tmp_path / 'two'}", f"data_dir={tmp_path / 'two'}"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = HERE.parents[2] / "scripts" / "train_stage1.py"
    done = subprocess.run(
        [sys.executable, *launcher, str(script), *arguments, *places, "devices=2"],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "two" / "smoke" / "stage1" / "trajectory.safetensors").is_file()
    single = [f"results_dir={tmp_path / 'one'}", f"data_dir={tmp_path / 'one'}"]
    config = runtime.resolve(runtime.compose([*arguments, *single]))
    folder = invert_frames_alone(config, runtime.start(config)).folder
    of_two = tmp_path / "two" / folder.name
    assert read_manifest(folder) == read_manifest(of_two) and len(read_manifest(folder).ok()) == 3
    for entry in read_manifest(folder).ok():
        one_clip, two_clip = (LatentClip.load(place / entry.file) for place in (folder, of_two))
        assert np.allclose(one_clip.w, two_clip.w, atol=0.01) and one_clip.ref_index == two_clip.ref_index
    assert not list((tmp_path / "two").glob("*/part-*.json"))
