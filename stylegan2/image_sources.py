"""What a generator is trained on: real images of a folder, or images of a teacher with the latents that made them.

A source is a function step -> (images (N, 3, R, R) in [-1, 1], latents (N, L, D) or None). It depends on nothing but
its seed and the step, so a resumed run sees exactly what an uninterrupted one would have seen.
"""

import math
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from stylegan2.images import resize, to_tensor, upright_rgb
from stylegan2.latent_pairs import draw_codes, extend_rows
from stylegan2.networks.generator import StyleGAN2
from stylegan2.networks.layers import Linear, Mapping
from stylegan2.networks.mobile_stylegan import MobileStyleGAN
from stylegan2.protocol import Generator
from stylegan2.weights import WeightsError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


class Source(Protocol):
    """Step -> (images, latents); latents are None where no teacher made the images."""

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]: ...


class ImageFolder:
    """Every picture below a folder, in a new random order each epoch, mirrored at random, cropped to a square.

    The next step's images are decoded in threads while the network trains.
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
        self.paths = sorted(p for p in Path(root).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not self.paths:
            raise FileNotFoundError(f"There are no images ({', '.join(sorted(SUFFIXES))}) below {root}.")
        self.resolution, self.batch, self.seed, self.flip, self.device = resolution, batch, seed, flip, device
        self.pool = ThreadPoolExecutor(threads)
        self.ahead: dict[int, list[Future[np.ndarray]]] = {}

    def __call__(self, step: int) -> tuple[Tensor, None]:
        loading = self.ahead.pop(step, None) or self._load(step)
        self.ahead = {step + 1: self._load(step + 1)}
        return to_tensor(np.stack([image.result() for image in loading]), self.device), None

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
            with Image.open(path) as file:
                upright = upright_rgb(file)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise OSError(f"{path} cannot be read as an image ({error}): remove or repair it.") from error
        size = (self.resolution, self.resolution)
        image = np.asarray(ImageOps.fit(upright, size, Image.Resampling.LANCZOS))
        return image[:, ::-1] if flip else image


class Teacher:
    """Live samples of a generator: latents truncated at random, rows of two crossed, and the teacher's images.

    Latents have the student's rows; a larger teacher repeats the last one, and its images are averaged down.
    """

    def __init__(
        self,
        teacher: Generator,
        student: Generator,
        batch: int,
        seed: int = 0,
        psi: tuple[float, float] = (0.5, 1.0),
        mixing: float = 0.9,
        chunk: int = 16,
    ) -> None:
        if teacher.resolution < student.resolution or teacher.w_dim != student.w_dim:
            raise WeightsError(
                f"A teacher of {teacher.resolution} px and width {teacher.w_dim} cannot teach a student of "
                f"{student.resolution} px and width {student.w_dim}: choose a smaller resolution."
            )
        self.teacher, self.student = teacher, student
        self.batch, self.seed, self.psi, self.mixing, self.chunk = batch, seed, psi, mixing, chunk

    @torch.no_grad()
    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        w_NLD = draw_codes(self.student, self.batch, rng, self.psi, self.mixing)
        images = [
            resize(self.teacher.synthesis(extend_rows(w, self.teacher.num_rows)), self.student.resolution)
            for w in w_NLD.split(self.chunk)
        ]
        return torch.cat(images).clamp(-1, 1), w_NLD


@torch.no_grad()
def copy_mapping(teacher: Generator, student: StyleGAN2) -> None:
    """Gives the student the teacher's mapping network and w_avg, so that both share W; WeightsError if they differ."""
    if isinstance(teacher, StyleGAN2):
        student.mapping.load_state_dict(teacher.mapping.state_dict())
    elif isinstance(teacher, MobileStyleGAN):
        _copy_plain(teacher, student.mapping)
    else:
        raise WeightsError(
            f"The mapping network of a {type(teacher).__name__} cannot be copied to a StyleGAN2."
        )
    student.mapping.w_avg.copy_(teacher.w_avg)
    z = torch.randn(4, student.z_dim, generator=torch.Generator().manual_seed(0)).to(teacher.w_avg.device)
    difference = (
        (teacher.mapping(z).cpu() - student.mapping(z.to(student.w_avg.device)).cpu()).abs().max().item()
    )
    if not difference < 1e-3:
        raise WeightsError(f"The copied mapping network differs from the teacher's by {difference:.2g}.")


def _copy_plain(teacher: MobileStyleGAN, mapping: Mapping) -> None:
    """Plain linear layers -> ours, which store weight sqrt(I) / lr and bias / lr."""
    if len(teacher.map.layers) != mapping.num_layers:
        raise WeightsError(
            f"The teacher has {len(teacher.map.layers)} mapping layers, expected {mapping.num_layers}."
        )
    for i, layer in enumerate(teacher.map.layers):
        ours = mapping.get_submodule(f"fc{i}")
        assert isinstance(ours, Linear) and isinstance(layer, torch.nn.Linear)
        ours.weight.copy_(layer.weight * (math.sqrt(layer.in_features) / ours.lr))
        ours.bias.copy_(layer.bias / ours.lr)
