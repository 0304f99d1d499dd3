"""The loss that makes G(w) show a person: minimised over an offset of their codes (encoders/person_offset.py), then over the
generator's weights (tuning/pivotal.py).

Its steps alternate between the whole image and the inner face, where the perceptual distance then sees twice the resolution.

Shapes: K frames, N of them in a step, L rows, D = 512; images [., 3, R, R] in [-1, 1], R the generator's resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from stylegan2.images import resize

INNER_FACE = (0.328, 0.25, 0.828, 0.75)  # top, left, bottom, right as shares of an FFHQ-aligned crop
CROP = 256  # px at which the identity is measured

View = Literal["whole", "inner"]
VIEWS: tuple[View, View] = ("whole", "inner")


class FeatureDistance(Protocol):
    """A perceptual distance whose features of an image can be kept (encoders/features/perceptual.py)."""

    def features(self, x: Tensor, /) -> list[Tensor]: ...

    def between(self, x: list[Tensor], y: list[Tensor], /) -> Tensor: ...


@dataclass(frozen=True)
class LikenessNetworks:
    """The frozen networks of the loss."""

    perceptual: FeatureDistance
    identity: Callable[[Tensor, Tensor], Tensor]  # images of 256 px and their landmarks -> embeddings [N, E]


@dataclass(frozen=True)
class LikenessWeights:
    """Weights of the terms."""

    pixel: float = 1.0  # mean squared error, images in [-1, 1]
    perceptual: float = 1.0
    identity: float = 0.2  # squared Euclidean distance of the embeddings


class Likeness:
    """The loss on K frames of a person. landmarks: their 68 landmarks [K, 68, 2], px of a crop of 256 px, which place the
    identity's crop. size: px at which the perceptual distance compares images.
    """

    def __init__(
        self,
        images_K3RR: Tensor,
        landmarks: Tensor,
        networks: LikenessNetworks,
        weights: LikenessWeights,
        size: int,
    ) -> None:
        self.target, self.points = images_K3RR, landmarks
        self.networks, self.weights, self.size = networks, weights, size
        with torch.no_grad():
            self.identity = networks.identity(resize(images_K3RR, CROP), landmarks)
            self.features = {view: self._features(images_K3RR, view) for view in VIEWS}

    def terms(self, image_N3RR: Tensor, index: Tensor, view: View) -> dict[str, Tensor]:
        """The weighted terms for images of the frames `index` (N,)."""
        true = [layer[index] for layer in self.features[view]]
        distance = self.networks.perceptual.between(self._features(image_N3RR, view), true).mean()
        embedding = self.networks.identity(resize(image_N3RR, CROP), self.points[index])
        return {
            "pixel": self.weights.pixel * (image_N3RR - self.target[index]).square().mean(),
            f"perceptual_{view}": self.weights.perceptual * distance,
            "identity": self.weights.identity * (embedding - self.identity[index]).square().sum(1).mean(),
        }

    def _features(self, images: Tensor, view: View) -> list[Tensor]:
        if view == "inner":
            top, left, bottom, right = (round(share * images.shape[-1]) for share in INNER_FACE)
            images = images[..., top:bottom, left:right]
        return self.networks.perceptual.features(resize(images, self.size))
