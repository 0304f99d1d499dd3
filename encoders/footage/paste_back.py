"""Puts a generated face crop back into the frame that it was cut from, through the inverse of the alignment.

    y = x + m (A^-1(g + c) - x)

x: the frame; g: the generated crop; c: a smooth field that corrects g's colours; m: a soft mask of the lower face; A: the
crop's affine map. Where m is 0 the frame's pixels stay exactly as they are. c is the difference between the true crop and
g on the mask's rim, continued smoothly into the mask, so that there is no step in colour or brightness at the border:

    c = G(r (t - g)) / G(r)        r: 1 on the rim, 0 elsewhere; t: the true crop; G: a Gaussian

Shapes: S side of a crop in px; landmarks (68, 2) px of the 256 px crop; quads as in footage/align.py.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from encoders.footage.align import CROP_SIZE

JAW, NOSE_BASE = slice(2, 15), slice(31, 36)
# In px of the 256 px crop.
MARGIN = 4.0  # by which the mask's border lies outside the jaw
FEATHER = 5.0  # standard deviation of the Gaussian that softens the mask's border
RIM = 5  # half of the rim's width
REACH = 10.0  # standard deviation of G
# Grey levels; a larger difference is another object, such as hair or a collar, and not another colour.
LARGEST_STEP = 48.0
INERTIA = 0.8  # share of the previous frame's colour field, because a field that jumps flickers


def lower_face_mask(landmarks: np.ndarray) -> np.ndarray:
    """float32 (256, 256) in [0, 1]: the convex hull of the jaw and the base of the nose, with a soft border.

    landmarks: (68, 2), or (N, 68, 2) for the hull of several faces, such as the true and the generated one. The border
    lies inside the crop wherever the face does.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.spatial import ConvexHull

    points = np.asarray(landmarks, np.float64).reshape(-1, 68, 2)
    jaw, nose = points[:, JAW].reshape(-1, 2), points[:, NOSE_BASE].reshape(-1, 2)
    outward = jaw - nose.mean(axis=0)
    jaw = jaw + MARGIN * outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    corners = np.concatenate([jaw, nose])
    picture = Image.new("L", (CROP_SIZE, CROP_SIZE))
    hull = corners[ConvexHull(corners).vertices]
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in hull], fill=1)
    inside, reach = np.array(picture, np.float32), math.ceil(2 * FEATHER) + 1
    inside[:reach] = inside[-reach:] = inside[:, :reach] = inside[:, -reach:] = 0.0
    return gaussian_filter(inside, FEATHER, truncate=2.0, mode="constant").clip(0.0, 1.0)


class ColourMatch:
    """The field c of successive frames; each is averaged with those before it."""

    def __init__(self) -> None:
        self._previous: np.ndarray | None = None

    def __call__(self, true: np.ndarray, generated: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """uint8 (256, 256, 3) twice and the mask (256, 256) -> grey levels to add, float32 (64, 64, 3): the field is smooth,
        so every fourth pixel is enough.
        """
        from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

        solid = mask > 0.5
        inside = np.asarray(minimum_filter(solid, 2 * RIM + 1), bool)
        rim = np.asarray(maximum_filter(solid, 2 * RIM + 1), bool) & ~inside
        step = (true.astype(np.float32) - generated).clip(-LARGEST_STEP, LARGEST_STEP)
        weight = rim[..., None].astype(np.float32)
        step, weight = _quarter(step * weight), _quarter(weight)
        # A little of the rim's mean keeps the quotient finite where the Gaussian does not reach.
        mean = step.sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)
        spread = [gaussian_filter(x, (REACH / 4, REACH / 4, 0), mode="constant") for x in (step, weight)]
        field = (spread[0] + 1e-3 * mean) / (spread[1] + 1e-3)
        if self._previous is not None:
            field = INERTIA * self._previous + (1 - INERTIA) * field
        self._previous = field
        return field


def _quarter(values: np.ndarray) -> np.ndarray:
    """Means of blocks of 4 x 4: (256, 256, C) -> (64, 64, C)."""
    return values.reshape(CROP_SIZE // 4, 4, CROP_SIZE // 4, 4, -1).mean(axis=(1, 3))


def paste(
    frame: np.ndarray, generated: np.ndarray, mask: np.ndarray, quad: np.ndarray, colours: np.ndarray
) -> np.ndarray:
    """The frame uint8 (H, W, 3) with the generated crop, uint8 (S, S, 3), blended in at the quad; a new array.

    mask: float32 (256, 256) in [0, 1]; colours: float32 (64, 64, 3), added to the crop (each of the three may have another
    size). Pixels outside the mask are equal to the frame's.
    """
    corners = np.asarray(quad, np.float64)
    height, width = frame.shape[:2]
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, [width, height])
    result = frame.copy()
    if (high <= low).any():
        return result
    place = low, high
    weight = _in_frame(mask, corners, place)[..., None]
    face = [_in_frame(x, corners, place, Image.Resampling.BICUBIC) for x in np.moveaxis(generated, 2, 0)]
    tint = [_in_frame(x, corners, place) for x in np.moveaxis(colours, 2, 0)]
    shown = (np.stack(face, axis=2) + np.stack(tint, axis=2)).clip(0.0, 255.0)
    part = result[low[1] : high[1], low[0] : high[0]]
    part[...] = np.rint(part + weight * (shown - part)).astype(np.uint8)
    return result


def _in_frame(
    values: np.ndarray,
    quad: np.ndarray,
    place: tuple[np.ndarray, np.ndarray],
    kernel: Image.Resampling = Image.Resampling.BILINEAR,
) -> np.ndarray:
    """Values (S, S) of a crop at the pixels of the frame from `low` to `high`: float32 (h, w), 0 outside the quad."""
    low, high = place
    size = values.shape[0]
    edges = np.stack([quad[3] - quad[0], quad[1] - quad[0]], axis=1) / size  # frame px per crop px, (2, 2)
    picture = Image.fromarray(values.astype(np.float32))
    # A crop of more px than its place in the frame is averaged first, so that it does not alias.
    block = max(1, round(1.0 / float(np.linalg.norm(edges, axis=0).max())))
    picture = picture.reduce(block) if block > 1 else picture
    inverse = np.linalg.inv(edges * block)
    # In Pillow an integer is the corner of a pixel; it adds half a pixel to the coordinates of the output itself.
    start = inverse @ (low - quad[0] - 0.5)
    coefficients = (*inverse[0], start[0], *inverse[1], start[1])
    shape = int(high[0] - low[0]), int(high[1] - low[1])
    return np.asarray(picture.transform(shape, Image.Transform.AFFINE, coefficients, kernel))
