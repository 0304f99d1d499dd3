"""Training data of encoders: images whose codes are known, in groups or alone, or photographs without codes.

Shapes: N images, L rows, D = 512; a *group* is several images of one person that differ in expression only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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

VALIDATION_BATCH = 20  # images per validation batch


@dataclass(frozen=True)
class EncoderBatch:
    """images [N, 3, S, S] in [-1, 1], with their codes [N, L, D] where these are known.

    The first in_groups images are whole groups of `group`; scale: the variance of all codes (`latent_scale`).
    """

    images: Tensor
    codes: Tensor | None = None
    in_groups: int = 0
    group: int = 1
    scale: float | Tensor = 1.0


Draw = Callable[[int], EncoderBatch]  # step -> batch


def latent_scale(codes_NLD: Tensor) -> Tensor:
    """Variance of W+ over a set of codes, averaged over rows and width: a scalar."""
    return codes_NLD.var(0).mean()


def whole_groups(batch: int, share: float, group: int) -> int:
    """Number of groups that make up about `share` of a batch."""
    return min(round(batch * share / group), batch // group)


@torch.inference_mode()
def latent_error(
    encoder: nn.Module, pairs: Iterable[tuple[Tensor, Tensor]], scale: Tensor
) -> dict[str, float]:
    """latent: the unexplained share of the codes' variance, mean |E(x) - w|^2 / var(w) over (images, codes)."""
    errors = [(encoder(images) - codes).square().mean((1, 2)) for images, codes in pairs]
    return {"latent": (torch.cat(errors).mean() / scale).item()}


class PairBatches:
    """Batches of images with codes from folders: `share` of a batch are whole groups, the others single images.

    The last `held` single images are never drawn: `validate` uses them. side: px to which images are averaged, the
    largest size that the encoder or a loss reads.
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

    def __call__(self, step: int) -> EncoderBatch:
        parts: list[tuple[Tensor, Tensor]] = []
        if self.groups and self.n_groups:
            starts = self.group * self.rng.integers(0, len(self.groups) // self.group, self.n_groups)
            parts.append(self._read(self.groups, (starts[:, None] + np.arange(self.group)).ravel()))
        in_groups = self.group * self.n_groups
        single = self.rng.integers(0, len(self.singles) - self.held, self.batch - in_groups)
        parts.append(self._read(self.singles, single))
        images, codes = (torch.cat(part) for part in zip(*parts, strict=True))
        return EncoderBatch(images, codes, in_groups, self.group, self.scale)

    def validate(self, encoder: nn.Module) -> dict[str, float]:
        """`latent_error` over the images held back."""
        held = np.arange(len(self.singles) - self.held, len(self.singles))
        chunks = [held[i : i + VALIDATION_BATCH] for i in range(0, len(held), VALIDATION_BATCH)]
        return latent_error(encoder, (self._read(self.singles, chunk) for chunk in chunks), self.scale)

    def _read(self, pairs: FolderPairs, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        images = resize(pairs.images(indices).to(self.device), self.side)
        return images, pairs.codes(indices).to(self.device)


class LivePairs:
    """Batches like those of `PairBatches`, but rendered anew at every step: on a GPU this is faster than reading files.

    Batch `step` depends on seed and step alone. directions_ALD: of the viseme basis, for the groups' expressions.
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

    def __call__(self, step: int) -> EncoderBatch:
        rng, in_groups = np.random.default_rng([self.seed, 0, step]), self.group * self.n_groups
        people = draw_expressions(self.generator, self.directions, self.n_groups, self.group, rng)
        codes = torch.cat([*people, draw_codes(self.generator, self.batch - in_groups, rng)])
        return EncoderBatch(self._render(codes), codes, in_groups, self.group, self.scale)

    def validate(self, encoder: nn.Module) -> dict[str, float]:
        """`latent_error` over `held` codes that no batch contains."""
        codes = draw_codes(self.generator, self.held, np.random.default_rng([self.seed, 2]))
        pairs = ((self._render(w), w) for w in codes.split(VALIDATION_BATCH))
        return latent_error(encoder, pairs, self.scale)

    def _render(self, codes_NLD: Tensor) -> Tensor:
        return render_codes(self.generator, codes_NLD, self.side, chunk=len(codes_NLD))


def photo_batches(source: Source, side: int) -> Draw:
    """Batches of images without codes, at `side` px, from a folder or a generator's samples."""
    return lambda step: EncoderBatch(resize(source(step)[0], side))


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


def held_batches(draw: Draw, held: int, batch: int) -> Iterator[EncoderBatch]:
    """Batches that cover `held` images."""
    return (draw(step) for step in range(-(-held // batch)))


def augmented(batch: EncoderBatch, random: torch.Generator) -> Tensor:
    """The batch's images changed by `augment`, all images of a group alike."""
    in_groups, alone = batch.images[: batch.in_groups], batch.images[batch.in_groups :]
    parts = [augment(x, n, random) for x, n in ((in_groups, batch.group), (alone, 1)) if len(x)]
    return torch.cat(parts)


def augment(images_N3HW: Tensor, group: int, random: torch.Generator) -> Tensor:
    """Changes that leave the code unchanged, as between photographs: shift, scale, colour, blur, noise; drawn once per
    group.

    In videos the alignment jitters by a pixel or two, and cameras differ in colour and sharpness. All random numbers
    are drawn on the CPU, so that they are the same on any device. The noise is an exception, because drawing it on the
    CPU is slow: only its seed is drawn there.
    """
    n, device = len(images_N3HW) // group, images_N3HW.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(*shape, device="cpu").uniform_(low, high, generator=random).to(device)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return uniform(low, high, n, *shape).repeat_interleave(group, 0)

    # Scale and shift, with a jitter that differs between the frames of a group
    theta = torch.zeros(n * group, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = draw(0.985, 1.015)
    jitter = uniform(-0.006, 0.006, n * group, 2)
    theta[:, :, 2] = draw(-0.01, 0.01, 2) + jitter
    grid = F.affine_grid(theta, list(images_N3HW.shape), align_corners=False)
    x = F.grid_sample(images_N3HW, grid, padding_mode="reflection", align_corners=False)
    # Colour is part of the code, so it varies only as much as a camera's white balance does
    x = (x + draw(-0.04, 0.04, 1, 1, 1)) * draw(0.95, 1.05, 1, 1, 1) * draw(0.98, 1.02, 3, 1, 1)
    # Blur and noise
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, draw(0.0, 1.0, 1, 1, 1))
    strength = 0.02 * draw(0.0, 1.0, 1, 1, 1)
    seed = int(torch.randint(2**31, (), generator=random, device="cpu"))
    noise = torch.randn(x.shape, generator=torch.Generator(device).manual_seed(seed), device=device)
    return x + strength * noise
