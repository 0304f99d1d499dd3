"""Stages in processes of their own that can be killed, started quickly: they are forked from one that has imported
everything.
"""

import hashlib
import os
import signal
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# What differs from run to run: times, and files that are not read again or hold times
UNEQUAL = ("run.json", "config.yaml", ".mp4.json", "state.pt")
STAGES = ("prepare_data", "invert_frames_alone", "train_stage1_alone", "train_stage2_alone", "generate_alone")


def started(
    stage: str, words: list[str], die_after: int | None = None, errors: Path | None = None
) -> BaseProcess:
    """The process of a stage. die_after: it kills itself (SIGKILL) as soon as it has renamed so many files. errors: a file
    that gets its standard error, which otherwise is that of the process from which it is forked.
    """
    context: Any = get_context("forkserver")
    context.set_forkserver_preload(["killable_stages_imports"])
    process = context.Process(target=run_stage, args=(stage, words, die_after, errors))
    process.start()
    return process


def run_stage(stage: str, words: list[str], die_after: int | None, errors: Path | None) -> None:
    import torch

    from scripts.core import runtime
    from scripts.core.signals import unwind_on_signals
    from scripts.stages import prepare_data, standalone

    if errors is not None:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    torch.set_num_threads(1)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as in a process that a shell starts
        signal.signal(number, signal.SIG_DFL)
    unwind_on_signals()
    if die_after is not None:
        _die_after(die_after)
    function = getattr(prepare_data if stage == "prepare_data" else standalone, stage)
    os._exit(runtime.attempt(function, runtime.compose(words)))


def _die_after(count: int) -> None:
    rename, left = os.replace, [count]

    def counted(*names: Any) -> None:
        rename(*names)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted


def results(folder: Path) -> dict[str, str]:
    """Every file below a folder by its name, with the hash of its content or, if that may differ, nothing. Hidden
    files and TensorBoard's are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and "tensorboard" not in name and not path.name.startswith("."):
            equal = not name.endswith(UNEQUAL)
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if equal else ""
    return found


def hidden(folder: Path) -> list[Path]:
    """What is left of files that were not finished."""
    return [path for path in folder.rglob(".*") if path.is_file()]
