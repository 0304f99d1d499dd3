"""The loss that makes G(w) show a person: minimised over an offset of their codes (encoders/person_offset.py), then over the
generator's weights (tuning/pivotal.py).

Its steps alternate. Two of three compare the image with a frame: first the whole image, then the inner face, which has
twice the resolution there. Every third adds a displacement d of the mouth and the head to the code. No frame shows
G(w + d), so its landmarks, and pixels around the mouth, must change as the base generator's do. Without these steps the
mouth of a person who is fitted to one photo with closed lips hardly opens any more. (The identity is not compared there:
an embedding depends on the mouth too, so the mouth would be kept closed.)

Shapes: K frames, N of them in a step, L rows, D = 512; images [., 3, R, R] in [-1, 1], R the generator's resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from encoders.geometry import MOUTH
from stylegan2.images import resize
from stylegan2.protocol import Generator

INNER_FACE = (0.328, 0.25, 0.828, 0.75)  # top, left, bottom, right as shares of an FFHQ-aligned crop
MOUTH_BOX = (0.55, 0.30, 0.90, 0.70)
CROP = 256  # px at which landmarks and identity are measured

Step = Literal["whole", "inner", "displaced"]
STEPS: tuple[Step, Step, Step] = ("whole", "inner", "displaced")


class FeatureDistance(Protocol):
    """A perceptual distance whose features of an image can be kept (encoders/features/perceptual.py)."""

    name: str

    def features(self, x: Tensor, /) -> list[Tensor]: ...

    def between(self, x: list[Tensor], y: list[Tensor], /) -> Tensor: ...


@dataclass(frozen=True)
class LikenessNetworks:
    """The frozen networks of the loss."""

    perceptual: FeatureDistance
    landmarks: Callable[[Tensor], Tensor]  # images of 256 px -> [N, 68, 2] px
    identity: Callable[[Tensor, Tensor], Tensor]  # images of 256 px and their landmarks -> embeddings [N, E]
    displacement: Callable[[torch.Generator], Tensor]  # draws a displacement [L, D]


@dataclass(frozen=True)
class LikenessWeights:
    """Weights of the terms."""

    pixel: float = 1.0  # mean squared error, images in [-1, 1]
    perceptual: float = 1.0
    landmarks: float = 0.1  # mean distance of the mouth's landmarks, per px of the 256 px crop
    identity: float = 0.2  # squared Euclidean distance of the embeddings
    response: float = 0.0  # mean squared error of what a displacement changes around the mouth


class Likeness:
    """The loss on K frames of a person.

    landmarks: their 68 landmarks [K, 68, 2], px of a crop of 256 px, found by a detector: `LikenessNetworks.landmarks` has
    learnt from generated faces and finds the lips of real ones too close together. codes_KLD: their codes, for which `base`
    shows how a displacement moves the landmarks. size: px at which the perceptual distance compares images.
    """

    def __init__(
        self,
        images_K3HW: Tensor,
        landmarks: Tensor,
        codes_KLD: Tensor,
        base: Generator,
        networks: LikenessNetworks,
        weights: LikenessWeights,
        size: int,
    ) -> None:
        self.base, self.codes, self.networks, self.weights, self.size = (
            base,
            codes_KLD,
            networks,
            weights,
            size,
        )
        side = min(images_K3HW.shape[-1], base.resolution)  # images are compared at this size, never enlarged
        self.target = resize(images_K3HW, side)
        with torch.no_grad():
            self.points = landmarks
            self.identity = networks.identity(resize(images_K3HW, CROP), landmarks)
            self.whole = networks.perceptual.features(resize(self.target, size))
            self.inner = networks.perceptual.features(self._inner(self.target))
        self._still: dict[int, tuple[Tensor, Tensor]] = {}

    def compared(self, image_N3RR: Tensor, index: Tensor, step: Step) -> dict[str, Tensor]:
        """The weighted terms for images G(w) of the frames `index` (N,)."""
        networks, weights = self.networks, self.weights
        image_N3RR = resize(image_N3RR, self.target.shape[-1])
        target = self.whole if step == "whole" else self.inner
        features = networks.perceptual.features(
            resize(image_N3RR, self.size) if step == "whole" else self._inner(image_N3RR)
        )
        distance = networks.perceptual.between(features, [layer[index] for layer in target]).mean()
        pixel = (image_N3RR - self.target[index]).square().mean()
        terms = {"pixel": weights.pixel * pixel, f"perceptual_{step}": weights.perceptual * distance}
        crop = resize(image_N3RR, CROP)
        unlike = (networks.identity(crop, self.points[index]) - self.identity[index]).square().sum(1).mean()
        terms["identity"] = weights.identity * unlike
        return terms | {"landmarks": self._landmarks(crop, self.points[index])}

    def displaced(self, image_N3RR: Tensor, index: Tensor, displacement_LD: Tensor) -> dict[str, Tensor]:
        """The weighted terms for images G(w + d) of the frames `index` (N,)."""
        with torch.no_grad():
            moved = self.base.synthesis(self.codes[index] + displacement_LD)
            stills, points = zip(*(self._base(int(k)) for k in index), strict=True)
            goal = self.points[index] + self.networks.landmarks(resize(moved, CROP)) - torch.cat(list(points))
        terms = {"landmarks": self._landmarks(resize(image_N3RR, CROP), goal)}
        if self.weights.response:
            expected = resize(moved - torch.cat(list(stills)), self.target.shape[-1])
            change = resize(image_N3RR, self.target.shape[-1]) - self.target[index]
            error = _cut(change - expected, MOUTH_BOX).square().mean()
            terms["response"] = self.weights.response * error
        return terms

    def _landmarks(self, crop: Tensor, goal: Tensor) -> Tensor:
        error = (self.networks.landmarks(crop) - goal)[:, MOUTH].norm(dim=2).mean()
        return self.weights.landmarks * error

    def _base(self, k: int) -> tuple[Tensor, Tensor]:
        """The base generator's image of frame k's code, and its landmarks."""
        if k not in self._still:
            image = self.base.synthesis(self.codes[k : k + 1])
            self._still[k] = image, self.networks.landmarks(resize(image, CROP))
        return self._still[k]

    def _inner(self, images: Tensor) -> Tensor:
        return resize(_cut(images, INNER_FACE), self.size)


def _cut(images: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    top, left, bottom, right = (round(share * images.shape[-1]) for share in box)
    return images[..., top:bottom, left:right]
