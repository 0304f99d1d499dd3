"""Divides items among processes; where processes cannot be made, this one does all of them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

from scripts.core.signals import unwind_on_signals

Item = TypeVar("Item")
Result = TypeVar("Result")
Setup = Callable[..., None]


def in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    alone: Callable[[], Iterator[Result]],
    say: Callable[[str], None],
    setup: Setup | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """The results of function(item) in order. setup(*arguments) is called once in each process.

    alone: makes the same results in this process. It is used, and that is said, where a semaphore cannot be made: where
    /dev/shm is missing or not writable, as in some containers.
    """
    # spawn: a forked child would inherit torch's threads and, on a GPU, its context
    context = get_context("spawn")
    try:
        pool = ProcessPoolExecutor(workers, context, _start, (setup, arguments))
    except (OSError, ImportError, NotImplementedError) as error:
        say(
            f"going on in one process, because processes cannot share semaphores here ({error}): is /dev/shm missing or "
            "read-only?"
        )
        yield from alone()
        return
    with pool:
        yield from pool.map(function, items)


def _start(setup: Setup | None, arguments: tuple[Any, ...]) -> None:
    unwind_on_signals()
    if setup is not None:
        setup(*arguments)
