"""Progress bar and TensorBoard of stage 1's training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from trajectory.training.preview import Preview


class TrainingLog:
    """Context manager around the loop. TensorBoard keys: train/loss/*, train/*, val/*, perf/*, pictures/*.

    enabled: false in all processes but the first; nothing is shown or written there.
    """

    def __init__(self, folder: Path, start: int, total: int, every: int, enabled: bool = True) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.enabled, self.every = enabled, every
        if not enabled:
            return
        # purge_step hides what a killed run logged after its last checkpoint, because those steps are repeated.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:.1f} it/s"))
        text = TextColumn("[bold]stage 1[/bold] loss {task.fields[loss]:.3f} val {task.fields[val]:.3f}")
        self.progress = Progress(text, *columns, TimeRemainingColumn())
        self.task = self.progress.add_task("", total=total, completed=start, loss=0.0, val=0.0, rate=0.0)
        self.clock, self.counted = time.monotonic(), start

    def __enter__(self) -> TrainingLog:
        if self.enabled:
            self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.enabled:
            self.progress.stop()
            self.writer.close()

    def train(self, step: int, losses: Mapping[str, Tensor], scalars: Mapping[str, Tensor | float]) -> None:
        """Every `every` steps: losses, other scalars, steps per second. Not every step, because reading a loss waits
        for the GPU.
        """
        if not self.enabled or step % self.every:
            return
        for name, value in losses.items():
            self.writer.add_scalar(f"train/loss/{name}", value.item(), step)
        for name, value in scalars.items():
            self.writer.add_scalar(f"train/{name}", float(value), step)
        now = time.monotonic()
        rate = (step - self.counted) / max(now - self.clock, 1e-9)
        self.clock, self.counted = now, step
        self.writer.add_scalar("perf/steps_per_second", rate, step)
        self.progress.update(self.task, completed=step, loss=losses["total"].item(), rate=rate)

    def preview(self, step: int, preview: Preview) -> None:
        """Writes pictures/strip and pictures/opening."""
        if self.enabled:
            self.writer.add_image("pictures/strip", preview.strip, step, dataformats="HWC")
            self.writer.add_figure("pictures/opening", preview.opening, step)

    def validation(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes val/*; scalars must hold "score"."""
        if self.enabled:
            for name, value in scalars.items():
                self.writer.add_scalar(f"val/{name}", value, step)
            self.progress.update(self.task, completed=step, val=scalars["score"])
