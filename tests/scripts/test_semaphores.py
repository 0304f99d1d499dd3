"""Without /dev/shm no semaphore can be made: the work goes on in one process, and that is said."""

import errno
import multiprocessing.synchronize
import os

import pytest

from scripts.core.processes import in_processes


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOENT, errno.EACCES])
def test_one_process_does_the_work(monkeypatch, number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", refuse)
    said: list[str] = []
    items = [3, 1, 2]
    results = list(in_processes(abs, items, 2, lambda: map(abs, items), said.append))
    assert results == items
    assert len(said) == 1 and os.strerror(number) in said[0] and "/dev/shm" in said[0]


def test_processes_keep_the_order():
    assert list(in_processes(abs, [-3, -1, -2], 2, lambda: iter([]), print)) == [3, 1, 2]
