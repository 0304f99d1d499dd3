"""Small networks for the loss of encoders/likeness.py."""

from torch import Tensor

from encoders.likeness import LikenessNetworks


class Pixels:
    """A perceptual distance whose only feature is the image."""

    def features(self, x: Tensor) -> list[Tensor]:
        return [x]

    def between(self, x: list[Tensor], y: list[Tensor]) -> Tensor:
        return (x[0] - y[0]).square().mean((1, 2, 3))


def mean_colour(images: Tensor, landmarks: Tensor) -> Tensor:
    return images.mean((2, 3))


SMALL_LIKENESS = LikenessNetworks(Pixels(), mean_colour)
