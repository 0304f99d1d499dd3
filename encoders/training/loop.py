"""The loop that the encoder and the sync network are trained by: steps, TensorBoard, validation, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from stylegan2.weights import WeightsError

Figures = dict[str, float]


class Trainer(Protocol):
    """config: steps, save_every and lr. step counts what was made; save writes a checkpoint.

    The losses of a step hold the gradient's norm, since a finite loss can leave weights that are not.
    """

    step: int

    @property
    def config(self) -> Any: ...
    def save(self, path: Path) -> None: ...


def training(
    trainer: Trainer,
    make_step: Callable[[], Figures],
    validate: Callable[[], Figures],
    folder: Path,
    rate: str,
) -> Iterator[tuple[int, Figures]]:
    """Makes steps up to config.steps from wherever the trainer stands; yields (step, losses), so the caller shows progress.

    validate: measures, added as val/<name> whenever checkpoint.pt is written into `folder`, where TensorBoard's events go
    too. rate: what the setting of the learning rate is called. Raises WeightsError, with nothing of it saved, when a loss or a measure is no
    longer finite.
    """
    config = trainer.config
    with SummaryWriter(str(folder)) as board:
        while trainer.step < config.steps:
            losses = make_step()
            saves = trainer.step % config.save_every == 0 or trainer.step == config.steps
            measures = {f"val/{name}": value for name, value in validate().items()} if saves else {}
            if not all(math.isfinite(value) for value in (losses | measures).values()):
                raise WeightsError(
                    f"Training diverged at step {trainer.step}: lower {rate} (it is {config.lr:g}); the last "
                    "checkpoint is intact."
                )
            for key, value in (
                {f"train/loss/{name}": value for name, value in losses.items()} | measures
            ).items():
                board.add_scalar(key, value, trainer.step)
            if saves:
                trainer.save(folder / "checkpoint.pt")
            yield trainer.step, losses | measures
