"""Small networks for the loss of encoders/likeness.py: every figure is a linear reading of the image."""

import torch
from torch import Tensor

from encoders.likeness import LikenessNetworks
from stylegan2.images import resize


class Pixels:
    """A perceptual distance whose only feature is the image."""

    name = "pixels"

    def features(self, x: Tensor) -> list[Tensor]:
        return [x]

    def between(self, x: list[Tensor], y: list[Tensor]) -> Tensor:
        return (x[0] - y[0]).square().mean((1, 2, 3))

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.between(self.features(x), self.features(y))


def brightness_landmarks(images: Tensor) -> Tensor:
    """68 points that move by 2 px where the image becomes brighter by 1."""
    return 128 + 2 * resize(images, 4).flatten(1)[:, :48].repeat(1, 3)[:, :136].unflatten(1, (68, 2))


def mean_colour(images: Tensor, landmarks: Tensor) -> Tensor:
    return images.mean((2, 3))


def small_likeness(displacement_LD: Tensor) -> LikenessNetworks:
    """Displacements are the given one times a number in [0, 1]."""

    def draw(random: torch.Generator) -> Tensor:
        return torch.rand((), generator=random) * displacement_LD

    return LikenessNetworks(Pixels(), brightness_landmarks, mean_colour, draw)
