"""Each stage is killed, ended by SIGTERM or runs into a full disk; the same command again ends in the result of an
undisturbed run.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from killable_stages import STAGES, hidden, results, started

pytestmark = pytest.mark.slow
STRIDE = 3  # of the moments between two files the first is tried, and every third from a random one on
MOMENTS = 2  # of SIGKILL and of SIGTERM, each in every stage
SHARES = (0.1, 0.6, 0.9)  # of the room that a stage needs
LONGEST_S = 900.0


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[Path]:
    """A small file system that tests fill."""
    folder = tmp_path_factory.mktemp("disk")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder], capture_output=True
    ).returncode:
        pytest.skip("a file system in memory cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class Stages:
    """Runs stages in one folder, because its name is part of some results."""

    def __init__(self, folder: Path, clips: Path) -> None:
        self.folder = folder
        split = [
            "data=folder",
            "data.seen=0.0",
            "data.validation=0.0",
            "data.unseen=0.34",
            f"data.root={clips}",
        ]
        where = [f"results_dir={folder / 'results'}", f"data_dir={folder / 'data'}"]
        self.last = 0.0  # seconds that the last run took
        self.seconds: dict[str, float] = {}  # that each stage took when it was not disturbed
        self.words = ["experiment=smoke", *split, *where, "workers=1", "device=cpu"]

    def restore(self, before: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(before, self.folder)

    def run(
        self,
        stage: str,
        die_after: int | None = None,
        after: float | None = None,
        sent: int = signal.SIGKILL,
        errors: Path | None = None,
    ) -> int:
        """The exit code. after: seconds until the signal is sent. errors: a file that gets what is printed to standard
        error.
        """
        process = started(stage, self.words, die_after, errors)
        begin = time.monotonic()  # the server that forks is ready
        process.join(after or LONGEST_S)
        if process.is_alive():
            assert after is not None, f"{stage} took longer than {LONGEST_S} s"
            os.kill(process.pid or 0, sent)
            process.join(LONGEST_S)
        assert process.exitcode is not None
        self.last = time.monotonic() - begin
        return process.exitcode


@pytest.fixture(scope="module")
def states(clip_folder, tmp_path_factory) -> Iterator[tuple[Stages, dict[str, Path]]]:
    """The folder in which stages run, and a copy of it before each stage; "end" is after the last one."""
    work, copies = tmp_path_factory.mktemp("work") / "w", tmp_path_factory.mktemp("states")
    stages, before = Stages(work, clip_folder), {STAGES[0]: copies / STAGES[0]}
    before[STAGES[0]].mkdir()
    stages.restore(before[STAGES[0]])
    for stage, following in zip(STAGES, [*STAGES[1:], "end"], strict=True):
        assert stages.run(stage) == 0
        stages.seconds[stage] = stages.last
        before[following] = copies / following
        shutil.copytree(work, before[following])
    yield stages, before


def after_of(stage: str) -> str:
    return [*STAGES, "end"][STAGES.index(stage) + 1]


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_in_the_same_result(stage, states):
    stages, before = states
    wanted = results(before[after_of(stage)])
    begin = random.randint(2, 1 + STRIDE)
    for die_after in (1, *range(begin, 100, STRIDE)):
        stages.restore(before[stage])
        if stages.run(stage, die_after) == 0:
            break
        assert stages.run(stage) == 0 and results(stages.folder) == wanted, f"killed after file {die_after}"
    assert die_after > 1


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_signals_at_random_moments(stage, sent, states):
    stages, before = states
    wanted = results(before[after_of(stage)])
    for _ in range(MOMENTS):
        stages.restore(before[stage])
        after = random.uniform(0.05, 0.95) * stages.seconds[stage]
        code = stages.run(stage, after=after, sent=sent)
        assert code in (0, -9 if sent == signal.SIGKILL else 128 + sent, -sent), code
        if code > 0:
            assert hidden(stages.folder) == []
        assert stages.run(stage) == 0 and results(stages.folder) == wanted, f"after {after:.2f} s"


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk(stage, states, disk, clip_folder, tmp_path):
    _, before = states
    stages = Stages(disk / "w", clip_folder)
    stages.restore(before[stage])
    empty = shutil.disk_usage(disk).used
    assert stages.run(stage) == 0
    wanted, needed = results(stages.folder), shutil.disk_usage(disk).used - empty
    for share in SHARES:
        stages.restore(before[stage])
        room = shutil.disk_usage(disk).used + int(needed * share)
        subprocess.run(["mount", "-o", f"remount,size={room}", disk], check=True)
        try:
            code = stages.run(stage, errors=tmp_path / "errors")
        finally:
            subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        printed = (tmp_path / "errors").read_text(encoding="utf-8")
        errors = [line for line in printed.splitlines() if line.strip()]
        assert code == 1 and len(errors) == 1 and "no space left on device" in errors[0], (
            share,
            code,
            errors,
        )
        made = results(stages.folder)
        assert hidden(stages.folder) == [] and made.items() <= wanted.items()
        assert results(before[stage]).keys() <= made.keys()
        assert stages.run(stage) == 0 and results(stages.folder) == wanted
