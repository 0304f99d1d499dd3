"""Everything a pre-training run is at one step, in one file; and what it shows while it runs."""

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from torch import Tensor

from stylegan2.images import to_uint8
from stylegan2.networks.discriminator import Discriminator
from stylegan2.networks.generator import StyleGAN2
from stylegan2.protocol import sample_w
from stylegan2.weights import WeightsError, atomic_path

if TYPE_CHECKING:
    from stylegan2.pretrain import PretrainConfig

# What a resumed run may change: how long it goes on and how often it reports. Everything else must be the same.
FREE = {"steps", "minutes", "log_every", "save_every", "half"}


class PretrainState:
    """Networks, average, optimisers, step. Random numbers need no saving: they follow from (seed, step)."""

    def __init__(
        self,
        generator: StyleGAN2,
        discriminator: Discriminator | None,
        g_optimiser: torch.optim.Optimizer,
        d_optimiser: torch.optim.Optimizer | None,
        config: "PretrainConfig",
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.g_optimiser, self.d_optimiser = g_optimiser, d_optimiser
        self.ema = copy.deepcopy(generator).eval().requires_grad_(False)
        self.step = 0
        self.path_mean = torch.zeros((), device=generator.w_avg.device)
        self.signature = {k: v for k, v in dataclasses.asdict(config).items() if k not in FREE}

    @torch.no_grad()
    def update_ema(self, config: "PretrainConfig") -> None:
        """ema <- b ema + (1 - b) G with b = 0.5^(batch / half-life); buffers (w_avg, noise) are copied."""
        half_life = min(config.ema_images, self.step * config.batch * config.ema_rampup)
        beta = 0.5 ** (config.batch / max(half_life, 1e-8))
        for average, value in zip(self.ema.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(value, 1 - beta)
        for average, value in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            average.copy_(value)

    def save(self, path: Path) -> None:
        """One file, renamed when whole: a kill leaves the previous checkpoint."""
        content: dict[str, Any] = {"signature": json.dumps(self.signature), "step": self.step}
        content |= {name: part.state_dict() for name, part in self._parts().items()}
        with atomic_path(path) as temporary:
            torch.save(content | {"path_mean": self.path_mean}, temporary)

    def resume(self, path: str | Path | None, required: bool) -> None:
        """Puts every part back; without `required` a missing file is a new run. Raises WeightsError."""
        if path is None or not (required or Path(path).is_file()):
            return
        if not Path(path).is_file():
            raise WeightsError(
                f"There is no checkpoint at {path}: check the path, or start anew with resume=none."
            )
        device = self.path_mean.device
        try:
            content = torch.load(path, map_location=device, weights_only=True)
            saved = json.loads(content["signature"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{path} is not a pre-training checkpoint or is cut short: start anew with resume=none."
            ) from error
        ours = json.loads(json.dumps(self.signature))
        changed = [f"{k} was {saved.get(k)}, is {ours.get(k)}" for k in ours if saved.get(k) != ours[k]]
        if changed:
            raise WeightsError(
                f"{path} was made with another configuration ({'; '.join(changed)}): restore it, or start anew with "
                "resume=none."
            )
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.step, self.path_mean = content["step"], content["path_mean"]

    def _parts(self) -> dict[str, Any]:
        parts = {
            "generator": self.generator,
            "ema": self.ema,
            "discriminator": self.discriminator,
            "g_optimiser": self.g_optimiser,
            "d_optimiser": self.d_optimiser,
        }
        return {name: part for name, part in parts.items() if part is not None}


class Rate(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.2f}/s")


def progress_bar(visible: bool) -> Progress:
    """Steps done, rate, time spent and to go, latest losses."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        disable=not visible,
    )


@torch.inference_mode()
def save_samples(
    generator: StyleGAN2, path: Path, pair: tuple[Tensor, Tensor | None] | None = None, count: int = 8
) -> None:
    """A picture: the average's samples at psi 0.7, or, given a teacher's (images, latents), both one above the other."""
    if pair is not None and pair[1] is not None:
        images, w = pair[0][:count], pair[1][:count]
        rows = [to_uint8(images), to_uint8(generator.synthesis(w))]
    else:
        rows = [to_uint8(generator.synthesis(sample_w(generator, count, seed=0, psi=0.7)))]
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(temporary)
