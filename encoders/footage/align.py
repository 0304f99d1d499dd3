"""The FFHQ crop of a face: its definition, its smoothing over time, and its resampling.

A quad is the crop's corners in the frame, (4, 2) px: top-left, bottom-left, bottom-right, top-right; always a
parallelogram, so that cropping is an affine map. In quads and landmarks an integer is the centre of a pixel (dlib's
convention): the whole of a W x H image is the quad from (-0.5, -0.5) to (W - 0.5, H - 0.5). Shapes: T frames, H height,
W width.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from encoders.geometry import MOUTH_LEFT, MOUTH_RIGHT, eye_centres

CROP_SIZE = 256  # px, the resolution of the embedded generator


def _rot90(v: np.ndarray) -> np.ndarray:
    """(v_x, v_y) -> (-v_y, v_x)."""
    return np.stack([-v[..., 1], v[..., 0]], axis=-1)


def ffhq_quad(landmarks: np.ndarray) -> np.ndarray:
    """The FFHQ crop of 68 points (Karras et al. 2019, appendix C): (..., 68, 2) px -> float32 (..., 4, 2) px.

    x = e - rot90(m), scaled to length max(2.0 |e|, 1.8 |m|), y = rot90(x), centre c = eyes + 0.1 m, corners
    c +- x +- y, where e leads from eye to eye and m from the middle of the eyes to the middle of the mouth.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    eyes = eye_centres(points)
    eye_to_eye = eyes[..., 1, :] - eyes[..., 0, :]
    eye_middle = eyes.mean(axis=-2)
    mouth_middle = (points[..., MOUTH_LEFT, :] + points[..., MOUTH_RIGHT, :]) / 2.0
    eye_to_mouth = mouth_middle - eye_middle

    x = eye_to_eye - _rot90(eye_to_mouth)
    length = np.maximum(
        2.0 * np.linalg.norm(eye_to_eye, axis=-1), 1.8 * np.linalg.norm(eye_to_mouth, axis=-1)
    )
    x = x * (length / np.maximum(np.linalg.norm(x, axis=-1), 1e-9))[..., None]
    return quad_of(eye_middle + 0.1 * eye_to_mouth, x, _rot90(x))


def quad_of(centre: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Centre, and half of the edges along the crop's x and y, (..., 2) each -> float32 (..., 4, 2)."""
    corners = [centre - x - y, centre - x + y, centre + x + y, centre + x - y]
    return np.stack(corners, axis=-2).astype(np.float32)


def quad_parts(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of `quad_of`: (..., 4, 2) -> centre, x, y, float64 (..., 2) each."""
    q = np.asarray(quads, dtype=np.float64)
    return q.mean(axis=-2), (q[..., 3, :] - q[..., 0, :]) / 2.0, (q[..., 1, :] - q[..., 0, :]) / 2.0


def interpolate_missing(values_T: np.ndarray, detected_T: np.ndarray) -> np.ndarray:
    """Fills undetected frames: linear in time between the neighbouring detections, constant before and after all.

    values_T (T, ...): values where detected_T (T,) is False are ignored and may be nan. Raises ValueError if no frame
    is detected.
    """
    known = np.flatnonzero(detected_T)
    if known.size == 0:
        raise ValueError("there is no detected frame to interpolate from")
    flat = np.asarray(values_T).reshape(len(values_T), -1)
    times = np.arange(len(flat))
    filled = np.stack([np.interp(times, known, column[known]) for column in flat.T], axis=1)
    return filled.reshape(np.shape(values_T)).astype(np.asarray(values_T).dtype)


def smooth_quads(quads_T42: np.ndarray, sigma_centre: float = 1.0, sigma_axes: float = 3.0) -> np.ndarray:
    """Gaussian smoothing over time, sigmas in frames, 0 = none: (T, 4, 2) -> float32 (T, 4, 2).

    The centre is smoothed little, so that the crop follows the head. Size and rotation are smoothed more, because they
    change slowly and their jitter would cause jitter in the latents.
    """
    from scipy.ndimage import gaussian_filter1d

    centre, x, y = quad_parts(quads_T42)
    if sigma_centre > 0:
        centre = gaussian_filter1d(centre, sigma_centre, axis=0, mode="nearest")
    if sigma_axes > 0:
        x = gaussian_filter1d(x, sigma_axes, axis=0, mode="nearest")
        y = gaussian_filter1d(y, sigma_axes, axis=0, mode="nearest")
    return quad_of(centre, x, y)


def _corner_and_edges(quad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The top-left corner and the whole edges along the crop's x and y, float64 (2,) each."""
    corners = np.asarray(quad, dtype=np.float64)
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        raise ValueError(f"a quad is (4, 2) finite numbers, got {corners.shape}")
    return corners[0], corners[3] - corners[0], corners[1] - corners[0]


def crop(image: np.ndarray, quad: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """Resamples the quad to a square: image uint8 (H, W, 3) -> uint8 (size, size, 3).

    Shrinking averages over the source pixels, so it does not alias. Parts of the quad outside the frame show the
    mirrored frame, blurred more strongly further out, as in the FFHQ images.
    """
    corner, edge_x, edge_y = _corner_and_edges(quad)
    source, origin = _surroundings(image, np.asarray(quad, dtype=np.float64))
    picture = Image.fromarray(source)
    scale = float(max(np.linalg.norm(edge_x), np.linalg.norm(edge_y))) / size  # source px per crop px
    # Large sources are first averaged over whole blocks that are smaller than a crop pixel, which is fast.
    block = max(1, int(scale / 1.5))
    picture = picture.reduce(block) if block > 1 else picture
    # The affine map then samples each crop pixel fine x fine times, and these samples are averaged.
    fine = max(1, math.ceil(scale / block))
    step_x, step_y = edge_x / (size * fine * block), edge_y / (size * fine * block)
    start = (corner + 0.5 - origin) / block  # in Pillow an integer is the corner of a pixel
    coefficients = (step_x[0], step_y[0], start[0], step_x[1], step_y[1], start[1])
    kernel = Image.Resampling.BICUBIC if fine == 1 else Image.Resampling.BILINEAR
    picture = picture.transform((size * fine, size * fine), Image.Transform.AFFINE, coefficients, kernel)
    return np.asarray(picture.reduce(fine) if fine > 1 else picture).copy()


def _surroundings(image: np.ndarray, quad: np.ndarray, margin: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image around the quad, mirrored and blurred outside; and its top-left (x, y) in the image."""
    from scipy.ndimage import gaussian_filter

    height, width = image.shape[:2]
    low = np.floor(quad.min(axis=0)).astype(int) - margin
    high = np.ceil(quad.max(axis=0)).astype(int) + margin + 1
    side = max(np.linalg.norm(quad[3] - quad[0]), 1.0)
    if (high - low).max() > 8 * max(height, width):
        raise ValueError(f"a crop of {side:.0f} px does not belong to a frame of {width} x {height} px")
    if (low >= 0).all() and (high <= [width, height]).all():
        return np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]), low

    columns, rows = np.arange(low[0], high[0]), np.arange(low[1], high[1])
    source = image[_mirror(rows, height)[:, None], _mirror(columns, width)[None, :]].astype(np.float32)
    outside_x = np.maximum(np.maximum(-columns, columns - (width - 1)), 0)
    outside_y = np.maximum(np.maximum(-rows, rows - (height - 1)), 0)
    depth = np.maximum(outside_x[None, :], outside_y[:, None]) / (0.1 * side)
    # The weight of the blurred image: 0 inside the frame, so that its pixels are unchanged, 1 far outside.
    mask = np.clip(3.0 * depth, 0.0, 1.0)[..., None].astype(np.float32)
    blurred = gaussian_filter(source, (0.02 * side, 0.02 * side, 0.0))
    return np.clip(np.rint(source + (blurred - source) * mask), 0, 255).astype(np.uint8), low


def _mirror(index: np.ndarray, length: int) -> np.ndarray:
    """Reflects indices into 0 .. length - 1 without repeating the border pixel."""
    if length == 1:
        return np.zeros_like(index)
    folded = np.mod(index, 2 * (length - 1))
    return np.where(folded >= length, 2 * (length - 1) - folded, folded)


def transform_points(points: np.ndarray, quad: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """Frame px -> px of the crop of this quad: (..., 2) -> float32 (..., 2)."""
    corner, edge_x, edge_y = _corner_and_edges(quad)
    inverse = np.linalg.inv(np.stack([edge_x, edge_y], axis=1))
    return ((np.asarray(points, dtype=np.float64) - corner) @ inverse.T * size - 0.5).astype(np.float32)


def points_in_frame(points: np.ndarray, quads: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """Crop px -> frame px, each frame by its own quad; the inverse of `transform_points`:
    (T, P, 2) and (T, 4, 2) -> float64 (T, P, 2)."""
    q = np.asarray(quads, dtype=np.float64)
    corner, edge_x, edge_y = q[:, :1], q[:, 3:4] - q[:, :1], q[:, 1:2] - q[:, :1]
    share = (np.asarray(points, dtype=np.float64) + 0.5) / size
    return corner + share[..., :1] * edge_x + share[..., 1:] * edge_y
