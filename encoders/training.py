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
    """config: steps, save_every and lr. step counts what was made; save writes a checkpoint."""

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
    too. rate: what the setting of the learning rate is called. Raises WeightsError when a loss is no longer finite.
    """
    config = trainer.config
    with SummaryWriter(str(folder)) as board:
        while trainer.step < config.steps:
            losses = make_step()
            if not all(math.isfinite(value) for value in losses.values()):
                raise WeightsError(
                    f"Training diverged at step {trainer.step}: lower {rate} (it is {config.lr:g}); the last "
                    "checkpoint is intact."
                )
            for key, value in losses.items():
                board.add_scalar(f"train/loss/{key}", value, trainer.step)
            if trainer.step % config.save_every == 0 or trainer.step == config.steps:
                measures = {f"val/{name}": value for name, value in validate().items()}
                for key, value in measures.items():
                    board.add_scalar(key, value, trainer.step)
                losses |= measures
                trainer.save(folder / "checkpoint.pt")
            yield trainer.step, losses
