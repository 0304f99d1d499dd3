"""Settings of stage 1's training and its learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trajectory.training.amplitude_calibration import Calibration


@dataclass
class TrainConfig:
    """Optimiser (AdamW), schedule, validation and logging of stage 1.

    The paper gives no schedule. The defaults suit minutes of speech; for GRID's hours use lr=1e-4 and many more steps.
    """

    steps: int = 4000  # gradient steps; enough for the ten minutes of speech of experiment=embedded
    lr: float = 1e-3  # the highest learning rate, after the warm-up
    lr_end: float = 0.05  # the last learning rate, as a share of lr
    warmup: int = 50  # steps over which the rate rises to lr
    weight_decay: float = 1e-2  # weight decay of AdamW, for matrices only (PyTorch's default)
    grad_clip: float = 1.0  # largest norm of the gradient (the usual value)
    ema: float = 0.99  # decay of the averaged weights, the ones that are validated and exported
    val_every: int = 100  # steps between two validations
    save_every: int = field(default=100, metadata={"keyed": False})  # steps between two checkpoints
    log_every: int = field(default=10, metadata={"keyed": False})  # steps between two rows in TensorBoard
    # Steps between two previews (frames and lip opening of a validation clip) in TensorBoard; 0: never.
    pictures_every: int = field(default=500, metadata={"keyed": False})
    patience: int = 0  # validations in a row without a better score after which training ends; 0: never
    calibration: Calibration = "scalar"  # how the amplitude is calibrated after training (gain_of)
    seed: int = 0  # seed of the windows, of dropout and of the rendered frames

    def __post_init__(self) -> None:
        if min(self.steps, self.val_every, self.save_every, self.log_every) < 1:
            raise ValueError("train.steps, val_every, save_every and log_every must be at least 1")
        if min(self.patience, self.pictures_every) < 0:
            raise ValueError("train.patience and pictures_every cannot be negative")
        if self.lr <= 0 or self.grad_clip <= 0 or not (0 <= self.lr_end <= 1 and 0 <= self.ema < 1):
            raise ValueError("train: need lr > 0, grad_clip > 0, 0 <= lr_end <= 1 and 0 <= ema < 1")


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then lr (e + (1 - e) (1 + cos(pi t)) / 2) with t the share of steps done, e = lr_end."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    t = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr * (config.lr_end + (1 - config.lr_end) * 0.5 * (1 + math.cos(math.pi * min(t, 1))))
