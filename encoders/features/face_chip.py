"""dlib's face chip, the crop that its recognition network takes, as a differentiable function of the image.

A similarity transform takes the landmarks as closely as possible (least squares) to a mean face; the chip is sampled bilinearly
along it, from an image that was first halved so often that no source pixel is skipped.
Points are complex numbers x + iy, so that a rotation with scaling is one factor. Shapes: N images, 68 points, S = 150 px.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 150  # px of a chip
PADDING = 0.25  # margin around the mean face, as a share of its width
BLACK = -1.0  # of places outside the image
LEAST = 9  # px: smallest side of the part of an image that becomes a chip
# The mean face (iBUG points 27-54 and 60-64, that is without jaw, brows and lower lip), in units of its width. These are the values of
# dlib's get_face_chip_details, without which its chips could not be reproduced.
POINTS = (*range(27, 55), *range(60, 65))
# fmt: off
MEAN_X = (
    0.490127, 0.490127, 0.490127, 0.490127, 0.36688, 0.426036, 0.490127, 0.554217, 0.613373,  # nose
    0.121737, 0.187122, 0.265825, 0.334606, 0.260918, 0.182743,  # left eye
    0.645647, 0.714428, 0.793132, 0.858516, 0.79751, 0.719335,  # right eye
    0.254149, 0.340985, 0.428858, 0.490127, 0.551395, 0.639268, 0.726104,  # upper lip, outside
    0.290379, 0.428096, 0.490127, 0.552157, 0.689874,  # upper lip, inside
)
MEAN_Y = (
    0.203352, 0.307009, 0.409805, 0.515625, 0.587326, 0.609345, 0.628106, 0.609345, 0.587326,
    0.216423, 0.178758, 0.179852, 0.231733, 0.245099, 0.244077,
    0.231733, 0.179852, 0.178758, 0.216423, 0.244077, 0.245099,
    0.780233, 0.745405, 0.727388, 0.742578, 0.727388, 0.745405, 0.780233,
    0.784792, 0.778746, 0.785343, 0.778746, 0.784792,
)
# fmt: on


def chip(images_N3HW: Tensor, landmarks: Tensor) -> Tensor:
    """Images [N, 3, H, W] in [-1, 1] and landmarks [N, 68, 2] in px (integers are centres of pixels) -> chips [N, 3, S, S].

    Gradients reach the images only; values beyond [-1, 1] are not clamped. ValueError for landmarks that are not finite, coincide or lie outside the image.
    """
    if landmarks.shape != (len(images_N3HW), 68, 2) or not bool(torch.isfinite(landmarks).all()):
        raise ValueError(
            f"{len(images_N3HW)} images need as many times 68 finite landmarks, got {tuple(landmarks.shape)}"
        )
    points = torch.view_as_complex(landmarks.detach().cpu().double().contiguous())
    chips = [_one(image[None], *_placed(face)) for image, face in zip(images_N3HW, points, strict=True)]
    return torch.cat(chips) if chips else images_N3HW.new_zeros(0, 3, SIDE, SIDE)


def _placed(landmarks: Tensor) -> tuple[complex, complex]:
    """Landmarks complex (68,) -> where the chip's centre lies in the image, and what one px of the chip is there.

    The least-squares similarity p = z q + t of centred points: z = sum(conj(q) p) / sum(|q|^2).
    """
    face = torch.complex(torch.tensor(MEAN_X).double(), torch.tensor(MEAN_Y).double())
    q = (face + PADDING * (1 + 1j)) * (SIDE / (1 + 2 * PADDING))
    p = landmarks[list(POINTS)]
    spread = q - q.mean()
    z = complex((spread.conj() * p).sum() / spread.abs().square().sum())
    if abs(z) * SIDE < LEAST:
        raise ValueError("the landmarks coincide or are only a few pixels apart")
    centre = complex(p.mean()) + z * (SIDE / 2 * (1 + 1j) - complex(q.mean()))
    # dlib puts the outer pixels' centres on the edges of a square whose side is a px shorter than the chip's side in the image.
    return centre, z * (SIDE - 1 / abs(z)) / (SIDE - 1)


def _one(image_13HW: Tensor, centre: complex, step: complex) -> Tensor:
    """The chip [1, 3, S, S] around `centre`, whose pixels are the complex number `step` of image pixels apart."""
    halvings = max(0, math.ceil(math.log2(abs(step))) - 1)
    part, origin = _surroundings(image_13HW, centre, step, halvings)
    centre -= origin
    for _ in range(halvings):
        part = _halved(part)
        centre, step = centre / 2 - (1.25 + 0.75j), step / 2  # these offsets are dlib's
    along = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    grid = centre + step * torch.complex(along[None, :], along[:, None])
    height, width = part.shape[-2:]
    inside = (grid.real >= 0) & (grid.imag >= 0) & (grid.real < width - 1) & (grid.imag < height - 1)
    scaled = torch.stack([(2 * grid.real + 1) / width - 1, (2 * grid.imag + 1) / height - 1], -1)
    sampled = F.grid_sample(part, scaled[None].to(part), align_corners=False)
    return torch.where(inside.to(part.device), sampled, BLACK)


def _surroundings(image: Tensor, centre: complex, step: complex, halvings: int) -> tuple[Tensor, complex]:
    """The part of the image that dlib reads for the chip, and its top-left corner: halving it starts at this corner."""
    margin = 2.0
    for _ in range(halvings):
        margin = 2 * margin + 2
    reach = (SIDE - 1) / 2 * (abs(step.real) + abs(step.imag)) + margin
    height, width = image.shape[-2:]
    left, right = round(max(centre.real - reach, 0)), round(min(centre.real + reach, width - 1))
    top, bottom = round(max(centre.imag - reach, 0)), round(min(centre.imag + reach, height - 1))
    if min(right - left, bottom - top) + 1 < LEAST * 2**halvings:
        raise ValueError("the landmarks lie outside the image")
    return image[:, :, top : bottom + 1, left : right + 1], complex(left, top)


def _halved(x: Tensor) -> Tensor:
    """Every second pixel after a 5 x 5 binomial filter, [1, 3, H, W] -> [1, 3, (H - 3) // 2, (W - 3) // 2]."""
    row = x.new_tensor([1, 4, 6, 4, 1]) / 16
    return F.conv2d(x, (row[:, None] * row).expand(3, 1, 5, 5), stride=2, groups=3)
