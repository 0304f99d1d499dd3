"""The training loop of the encoder and the sync network: steps, TensorBoard, validation, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from encoders.training.resume import TrainingError

Figures = dict[str, float]


class Trainer(Protocol):
    """config: steps, save_every and lr. step: number of steps done. save: writes a checkpoint."""

    step: int

    @property
    def config(self) -> Any: ...
    def save(self, path: Path) -> None: ...


def training_loop(
    trainer: Trainer,
    make_step: Callable[[], Figures],
    validate: Callable[[], Figures],
    folder: Path,
    lr_setting: str,
) -> Iterator[tuple[int, Figures]]:
    """Trains from trainer.step up to config.steps; yields (step, losses), so that the caller can show progress.

    make_step: advances trainer.step and returns the step's losses and the gradient's norm, which is checked too because
    a finite loss may have a gradient that is not finite. validate: measures, added as val/<name> whenever checkpoint.pt
    is written into `folder`, into which TensorBoard's events are written too. lr_setting: the learning rate's name on
    the command line. Raises TrainingError, and saves nothing of that step, if a loss or a measure is not finite.
    """
    from torch.utils.tensorboard import SummaryWriter

    config = trainer.config
    with SummaryWriter(str(folder)) as board:
        while trainer.step < config.steps:
            # One step, and validation if a checkpoint is due
            losses = make_step()
            saves = trainer.step % config.save_every == 0 or trainer.step == config.steps
            measures = {f"val/{name}": value for name, value in validate().items()} if saves else {}
            if not all(math.isfinite(value) for value in (losses | measures).values()):
                raise TrainingError(
                    f"Training diverged at step {trainer.step}: lower {lr_setting} (it is {config.lr:g}); the last "
                    "checkpoint is intact."
                )
            # Log and save
            for name, value in losses.items():
                board.add_scalar(f"train/loss/{name}", value, trainer.step)
            for name, value in measures.items():
                board.add_scalar(name, value, trainer.step)
            if saves:
                trainer.save(folder / "checkpoint.pt")
            yield trainer.step, losses | measures


def warm_up_cosine(lr: float, step: int, steps: int, warm_up: int, last: float) -> float:
    """Learning rate at a step: rises linearly over `warm_up` steps to lr, and falls as a cosine to last * lr."""
    shape = last + (1 - last) / 2 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
    return lr * min(1.0, (step + 1) / warm_up) * shape
