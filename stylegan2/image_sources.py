"""Sources of training images for encoders: a folder of photographs, or images of a generator with their latents.

A source is a function step -> (images (N, 3, R, R) in [-1, 1], latents (N, L, D) or None). Its result depends only on
its seed and the step, so a resumed training sees the same images as an uninterrupted one.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import ImageOps
from PIL.Image import Resampling
from torch import Tensor

from stylegan2.images import read_rgb, to_tensor
from stylegan2.latent_pairs import TrainingImagesError, draw_codes, render_codes
from stylegan2.protocol import Generator

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def is_photo(path: Path) -> bool:
    """By its suffix. Hidden files are no photos: macOS writes ._photo.jpg beside photo.jpg."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


class Source(Protocol):
    """Step -> (images, latents); latents are None for photographs."""

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]: ...


class ImageFolder:
    """The pictures below a folder, in a new random order each epoch, cropped to a square, half of them mirrored.

    Threads decode the images of the next step while the network is trained. Raises TrainingImagesError if there are no
    pictures or one cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        resolution: int,
        batch: int,
        seed: int = 0,
        flip: bool = True,
        device: torch.device | str = "cpu",
        threads: int = 4,
    ) -> None:
        self.paths = sorted(p for p in Path(root).rglob("*") if is_photo(p))
        if not self.paths:
            raise TrainingImagesError(f"There are no images ({', '.join(sorted(SUFFIXES))}) below {root}.")
        self.resolution, self.batch, self.seed, self.flip, self.device = resolution, batch, seed, flip, device
        self.pool = ThreadPoolExecutor(threads)
        self.loading: dict[int, list[Future[np.ndarray]]] = {}  # step -> its images

    def __call__(self, step: int) -> tuple[Tensor, None]:
        current = self.loading.pop(step, None) or self._load(step)
        self.loading = {step + 1: self._load(step + 1)}
        return to_tensor(np.stack([image.result() for image in current]), self.device), None

    def choice(self, step: int) -> list[tuple[int, bool]]:
        """(index of the file, mirrored) for each image of a step."""
        positions = np.arange(step * self.batch, (step + 1) * self.batch)
        chosen = []
        for epoch in np.unique(positions // len(self.paths)):
            rng = np.random.default_rng([self.seed, int(epoch)])
            order, mirrored = rng.permutation(len(self.paths)), rng.random(len(self.paths)) < 0.5
            for place in positions[positions // len(self.paths) == epoch] % len(self.paths):
                chosen.append((int(order[place]), bool(mirrored[place]) and self.flip))
        return chosen

    def _load(self, step: int) -> list[Future[np.ndarray]]:
        return [self.pool.submit(self._read, self.paths[i], flip) for i, flip in self.choice(step)]

    def _read(self, path: Path, flip: bool) -> np.ndarray:
        try:
            upright = read_rgb(path)
        except (OSError, ValueError) as error:
            raise TrainingImagesError(
                f"{path} cannot be read as an image ({error}): remove or repair it."
            ) from error
        size = (self.resolution, self.resolution)
        image = np.asarray(ImageOps.fit(upright, size, Resampling.LANCZOS))
        return image[:, ::-1] if flip else image


class GeneratorSamples:
    """New samples of a generator for each step, with their latents (`latent_pairs.draw_codes` at its default psi)."""

    def __init__(
        self, generator: Generator, batch: int, seed: int = 0, mixing: float = 0.9, chunk: int = 16
    ) -> None:
        self.generator, self.batch, self.seed = generator, batch, seed
        self.mixing, self.chunk = mixing, chunk

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        w_NLD = draw_codes(self.generator, self.batch, rng, mixing=self.mixing)
        return render_codes(self.generator, w_NLD, self.generator.resolution, self.chunk), w_NLD
