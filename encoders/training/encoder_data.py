"""What encoders are trained on: images whose codes are known, in groups or alone, or photographs without codes.

Shapes: N images, L rows, D = 512; a *group* is several images of one person that differ in expression only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.bases.viseme_fit import draw_expressions
from stylegan2.image_sources import ImageFolder, Source
from stylegan2.images import resize
from stylegan2.latent_pairs import FolderPairs, draw_codes, render_codes
from stylegan2.protocol import Generator


@dataclass(frozen=True)
class Batch:
    """images [N, 3, S, S] in [-1, 1], with their codes [N, L, D] where these are known.

    The first in_groups images are whole groups of `group`; scale: the variance of all codes (`latent_scale`).
    """

    images: Tensor
    codes: Tensor | None = None
    in_groups: int = 0
    group: int = 1
    scale: float | Tensor = 1.0


Draw = Callable[[int], Batch]  # step -> batch


def latent_scale(codes_NLD: Tensor) -> Tensor:
    """Variance of W+ over a set of codes, averaged over rows and width: a scalar."""
    return codes_NLD.var(0).mean()


def whole_groups(batch: int, share: float, group: int) -> int:
    """How many groups make up about `share` of a batch."""
    return min(round(batch * share / group), batch // group)


class PairBatches:
    """Batches of images with codes: `share` of a batch are whole groups, the others single images.

    The last `held` single images are never drawn: `validate` looks at them. side: px that the encoder looks at, so
    nothing larger is augmented or compared.
    """

    def __init__(
        self,
        singles: FolderPairs,
        groups: FolderPairs | None,
        group: int,
        batch: int,
        share: float,
        held: int,
        side: int,
        rng: np.random.Generator,
        device: torch.device | str = "cpu",
    ):
        if len(singles) <= held:
            raise ValueError(
                f"There are {len(singles)} images with codes, of which encoder_train.validation={held} would be held "
                "back: make more (pairs.count) or hold back fewer."
            )
        self.singles, self.groups, self.group, self.batch = singles, groups, group, batch
        self.held, self.side, self.rng, self.device = held, side, rng, device
        self.n_groups = whole_groups(batch, share, group) if groups else 0
        self.scale = latent_scale(singles.codes(np.arange(min(2000, len(singles))))).to(device)

    def __call__(self, step: int) -> Batch:
        parts: list[tuple[FolderPairs, np.ndarray]] = []
        if self.groups and self.n_groups:
            starts = self.group * self.rng.integers(0, len(self.groups) // self.group, self.n_groups)
            parts.append((self.groups, (starts[:, None] + np.arange(self.group)).ravel()))
        in_groups = self.group * self.n_groups
        single = self.rng.integers(0, len(self.singles) - self.held, self.batch - in_groups)
        drawn = [self._read(pairs, indices) for pairs, indices in [*parts, (self.singles, single)]]
        images, codes = (torch.cat(part) for part in zip(*drawn, strict=True))
        return Batch(images, codes, in_groups, self.group, self.scale)

    @torch.inference_mode()
    def validate(self, encoder: nn.Module) -> dict[str, float]:
        """latent: the share of the codes' variance that is left, mean |E(x) - w|^2 / var(w) over what was held back."""
        errors = []
        for start in range(len(self.singles) - self.held, len(self.singles), 20):
            indices = np.arange(start, min(start + 20, len(self.singles)))
            images, codes = self._read(self.singles, indices)
            errors.append((encoder(images) - codes).square().mean((1, 2)))
        return {"latent": (torch.cat(errors).mean() / self.scale).item()}

    def _read(self, pairs: FolderPairs, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        images = resize(pairs.images(indices).to(self.device), self.side)
        return images, pairs.codes(indices).to(self.device)


class LivePairs:
    """Batches as those of `PairBatches`, but of new people every time: on a GPU to draw is cheaper than to read.

    Batch `step` depends on nothing but seed and step. directions_ALD: of the viseme basis, which the groups show.
    """

    def __init__(
        self,
        generator: Generator,
        directions_ALD: Tensor,
        group: int,
        batch: int,
        share: float,
        held: int,
        side: int,
        seed: int,
    ):
        self.generator, self.directions, self.group, self.batch = generator, directions_ALD, group, batch
        self.held, self.side, self.seed = held, side, seed
        self.n_groups = whole_groups(batch, share, group)
        self.scale = latent_scale(draw_codes(generator, 2000, np.random.default_rng([seed, 1])))

    def __call__(self, step: int) -> Batch:
        rng, in_groups = np.random.default_rng([self.seed, 0, step]), self.group * self.n_groups
        people = draw_expressions(self.generator, self.directions, self.n_groups, self.group, rng)
        codes = torch.cat([*people, draw_codes(self.generator, self.batch - in_groups, rng)])
        return Batch(self._show(codes), codes, in_groups, self.group, self.scale)

    @torch.inference_mode()
    def validate(self, encoder: nn.Module) -> dict[str, float]:
        """As that of `PairBatches`, over `held` codes of their own."""
        codes = draw_codes(self.generator, self.held, np.random.default_rng([self.seed, 2]))
        errors = [(encoder(self._show(w)) - w).square().mean((1, 2)) for w in codes.split(20)]
        return {"latent": (torch.cat(errors).mean() / self.scale).item()}

    def _show(self, codes_NLD: Tensor) -> Tensor:
        return render_codes(self.generator, codes_NLD, self.side, chunk=len(codes_NLD))


def photo_batches(source: Source, side: int) -> Draw:
    """Images alone, at `side` px, of any source: a folder, or a generator's samples without their codes."""
    return lambda step: Batch(resize(source(step)[0], side))


def photographs(
    root: str | Path, side: int, batch: int, held: int, seed: int, device: torch.device | str
) -> tuple[ImageFolder, ImageFolder]:
    """A folder's images for training, and the last `held` of them (by name) for validation, not mirrored.

    Raises FileNotFoundError unless there are more than `held`.
    """
    train = ImageFolder(root, side, batch, seed, device=device)
    test = ImageFolder(root, side, batch, seed, flip=False, device=device)
    if len(train.paths) <= held:
        raise FileNotFoundError(
            f"{root} holds {len(train.paths)} images, of which encoder_train.validation={held} would be held back: "
            "give more images or hold back fewer."
        )
    train.paths, test.paths = train.paths[: len(train.paths) - held], train.paths[len(train.paths) - held :]
    return train, test


def held_batches(draw: Draw, held: int, batch: int) -> Iterator[Batch]:
    """Batches that cover `held` images."""
    return (draw(step) for step in range(-(-held // batch)))


def augmented(batch: Batch, random: torch.Generator) -> Tensor:
    """The batch's images changed by `augment`, each group alike."""
    in_groups, alone = batch.images[: batch.in_groups], batch.images[batch.in_groups :]
    parts = [augment(x, n, random) for x, n in ((in_groups, batch.group), (alone, 1)) if len(x)]
    return torch.cat(parts)


def augment(images_N3HW: Tensor, group: int, random: torch.Generator) -> Tensor:
    """Photograph-like changes that leave the code: shift, scale, colour, blur, noise; one draw per group.

    The alignment of a video wobbles by a pixel or two, cameras differ in colour and sharpness. What is drawn comes from
    the CPU, whatever the device, but for the grain, whose seed does: a million numbers a batch are slow there.
    """
    n, device = len(images_N3HW) // group, images_N3HW.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(*shape, device="cpu").uniform_(low, high, generator=random).to(device)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return uniform(low, high, n, *shape).repeat_interleave(group, 0)

    theta = torch.zeros(n * group, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = draw(0.985, 1.015)
    wobble = uniform(-0.006, 0.006, n * group, 2)  # differs between frames
    theta[:, :, 2] = draw(-0.01, 0.01, 2) + wobble
    grid = F.affine_grid(theta, list(images_N3HW.shape), align_corners=False)
    x = F.grid_sample(images_N3HW, grid, padding_mode="reflection", align_corners=False)
    # Colour is content, which the code must tell: it varies only as much as a camera's white balance does.
    x = (x + draw(-0.04, 0.04, 1, 1, 1)) * draw(0.95, 1.05, 1, 1, 1) * draw(0.98, 1.02, 3, 1, 1)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, draw(0.0, 1.0, 1, 1, 1))
    strength = 0.02 * draw(0.0, 1.0, 1, 1, 1)
    seed = int(torch.randint(2**31, (), generator=random, device="cpu"))
    return x + strength * torch.randn(
        x.shape, generator=torch.Generator(device).manual_seed(seed), device=device
    )
