"""scripts/stages/invert_frames.py: how the clips are divided among threads."""

import threading
from types import SimpleNamespace

import pytest
import torch

from scripts.core import runtime
from scripts.stages.invert_frames import Inverter


@pytest.mark.parametrize(("tasks", "at_once", "cores_each"), [(5, 2, 2), (1, 1, 4)])
def test_on_a_cpu_clips_are_inverted_at_once_with_a_share_of_the_cores_each(tasks, at_once, cores_each):
    inverter = Inverter.__new__(Inverter)
    inverter.generator, inverter.workers = SimpleNamespace(w_avg=torch.zeros(1)), 2  # type: ignore[assignment]
    together = threading.Barrier(at_once)

    def task(number: int) -> int:
        if number < at_once:
            together.wait(timeout=60)  # raises BrokenBarrierError unless `at_once` tasks run at the same time
        return torch.get_num_threads()

    with runtime.threads(4):
        with inverter.several_at_once(tasks) as pool:
            assert list(pool.map(task, range(tasks))) == [cores_each] * tasks
        assert torch.get_num_threads() == 4
