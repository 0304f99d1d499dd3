"""The FFHQ crop of a face, its smoothing over time, and the way back into the frame.

A quad is (4, 2) px: the crop's corners in the frame, top-left, bottom-left, bottom-right, top-right. Quads and
landmarks count a pixel's *centre* as the integer (dlib's convention), so the whole of a W x H image is the quad
(-0.5, -0.5) ... (W - 0.5, H - 0.5). All quads here are parallelograms, so a crop is one affine map.
Shape legend: T frames, H height, W width.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from encoders.geometry import MOUTH_LEFT, MOUTH_RIGHT, eye_centres

CROP_SIZE = 256


def _rot90(v: np.ndarray) -> np.ndarray:
    """(v_x, v_y) -> (-v_y, v_x)."""
    return np.stack([-v[..., 1], v[..., 0]], axis=-1)


def ffhq_quad(landmarks: np.ndarray) -> np.ndarray:
    """The FFHQ crop of 68 points (Karras et al. 2019, appendix C): (..., 68, 2) px -> float32 (..., 4, 2) px.

    x = e - rot90(m), of length max(2.0 |e|, 1.8 |m|), y = rot90(x), centre c = eyes + 0.1 m, corners c +- x +- y,
    with e from eye to eye, m from the eyes' middle to the mouth's.
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
    y = _rot90(x)
    centre = eye_middle + 0.1 * eye_to_mouth
    return quad_of(centre, x, y)


def quad_of(centre: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Centre and half edges along the crop's x and y, (..., 2) each -> float32 (..., 4, 2)."""
    corners = [centre - x - y, centre - x + y, centre + x + y, centre + x - y]
    return np.stack(corners, axis=-2).astype(np.float32)


def quad_parts(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of `quad_of` for parallelograms: (..., 4, 2) -> centre, x, y, float64 (..., 2) each."""
    q = np.asarray(quads, dtype=np.float64)
    return q.mean(axis=-2), (q[..., 3, :] - q[..., 0, :]) / 2.0, (q[..., 1, :] - q[..., 0, :]) / 2.0


def interpolate_missing(values_T: np.ndarray, detected_T: np.ndarray) -> np.ndarray:
    """Fill the frames where nothing was detected: linear in time between the neighbours, held at both ends.

    values_T (T, ...) any floats (also nan) where detected_T (T,) is False; at least one frame must be detected.
    """
    known = np.flatnonzero(detected_T)
    if known.size == 0:
        raise ValueError("there is no detected frame to interpolate from")
    flat = np.asarray(values_T).reshape(len(values_T), -1)
    times = np.arange(len(flat))
    filled = np.stack([np.interp(times, known, column[known]) for column in flat.T], axis=1)
    return filled.reshape(np.shape(values_T)).astype(np.asarray(values_T).dtype)


def smooth_quads(quads_T42: np.ndarray, sigma_centre: float = 1.0, sigma_axes: float = 3.0) -> np.ndarray:
    """Gaussian smoothing over time, sigmas in frames: (T, 4, 2) -> float32 (T, 4, 2); sigma 0 leaves a part as it is.

    The centre follows the head closely; size and rotation change slowly, and their jitter would become latent jitter.
    """
    centre, x, y = quad_parts(quads_T42)
    if sigma_centre > 0:
        centre = gaussian_filter1d(centre, sigma_centre, axis=0, mode="nearest")
    if sigma_axes > 0:
        x = gaussian_filter1d(x, sigma_axes, axis=0, mode="nearest")
        y = gaussian_filter1d(y, sigma_axes, axis=0, mode="nearest")
    return quad_of(centre, x, y)


def _axes(quad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The corner and the two full edges (along the crop's x, along its y), float64."""
    corners = np.asarray(quad, dtype=np.float64)
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        raise ValueError(f"a quad is (4, 2) finite numbers, got {corners.shape}")
    return corners[0], corners[3] - corners[0], corners[1] - corners[0]


def crop(image: np.ndarray, quad: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """Resample the quad to a square: image uint8 (H, W, 3) -> uint8 (size, size, 3).

    A shrinking crop samples each source pixel at least once and averages, so it does not alias. Where the quad
    leaves the frame the frame is mirrored and blurred, more so further out, as the FFHQ images are.
    """
    corner, edge_x, edge_y = _axes(quad)
    source, origin = _surroundings(image, np.asarray(quad, dtype=np.float64))
    picture = Image.fromarray(source)
    scale = float(max(np.linalg.norm(edge_x), np.linalg.norm(edge_y))) / size  # source px per crop px
    # Far too many pixels are first averaged in whole blocks smaller than a crop pixel, which costs least.
    block = max(1, int(scale / 1.5))
    picture = picture.reduce(block) if block > 1 else picture
    fine = max(1, math.ceil(scale / block))
    step_x, step_y = edge_x / (size * fine * block), edge_y / (size * fine * block)
    start = (corner + 0.5 - origin) / block  # Pillow counts a pixel's corner as the integer
    coefficients = (step_x[0], step_y[0], start[0], step_x[1], step_y[1], start[1])
    kernel = Image.Resampling.BICUBIC if fine == 1 else Image.Resampling.BILINEAR
    picture = picture.transform((size * fine, size * fine), Image.Transform.AFFINE, coefficients, kernel)
    return np.asarray(picture.reduce(fine) if fine > 1 else picture).copy()


def _surroundings(image: np.ndarray, quad: np.ndarray, margin: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image around the quad, mirrored and blurred outside; and its top-left (x, y) in the image."""
    height, width = image.shape[:2]
    low = np.floor(quad.min(axis=0)).astype(int) - margin
    high = np.ceil(quad.max(axis=0)).astype(int) + margin + 1
    side = max(np.linalg.norm(quad[3] - quad[0]), 1.0)
    if (high - low).max() > 8 * max(height, width):
        raise ValueError(f"a crop of {side:.0f} px does not belong to a frame of {width} x {height} px")
    inside_low, inside_high = np.maximum(low, 0), np.minimum(high, [width, height])
    if (inside_low == low).all() and (inside_high == high).all():
        return np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]), low

    columns, rows = np.arange(low[0], high[0]), np.arange(low[1], high[1])
    source = image[_mirror(rows, height)[:, None], _mirror(columns, width)[None, :]].astype(np.float32)
    outside_x = np.maximum(np.maximum(-columns, columns - (width - 1)), 0)
    outside_y = np.maximum(np.maximum(-rows, rows - (height - 1)), 0)
    depth = np.maximum(outside_x[None, :], outside_y[:, None]) / (0.1 * side)
    mask = np.clip(3.0 * depth, 0.0, 1.0)[..., None].astype(
        np.float32
    )  # 0 inside: real pixels stay untouched
    blurred = gaussian_filter(source, (0.02 * side, 0.02 * side, 0.0))
    return np.clip(np.rint(source + (blurred - source) * mask), 0, 255).astype(np.uint8), low


def _mirror(index: np.ndarray, length: int) -> np.ndarray:
    """Reflect indices into 0 .. length - 1 without repeating the border pixel."""
    if length == 1:
        return np.zeros_like(index)
    folded = np.mod(index, 2 * (length - 1))
    return np.where(folded >= length, 2 * (length - 1) - folded, folded)


def transform_points(points: np.ndarray, quad: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """Frame px -> crop px: (..., 2) -> float32 (..., 2); exact for the crop of the same quad."""
    corner, edge_x, edge_y = _axes(quad)
    inverse = np.linalg.inv(np.stack([edge_x, edge_y], axis=1))
    return ((np.asarray(points, dtype=np.float64) - corner) @ inverse.T * size - 0.5).astype(np.float32)


def points_in_frame(points: np.ndarray, quads: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """Crop px -> frame px, the inverse of `transform_points`, each frame by its own quad:
    (T, P, 2) and (T, 4, 2) -> float64 (T, P, 2)."""
    q = np.asarray(quads, dtype=np.float64)
    corner, edge_x, edge_y = q[:, :1], q[:, 3:4] - q[:, :1], q[:, 1:2] - q[:, :1]
    share = (np.asarray(points, dtype=np.float64) + 0.5) / size
    return corner + share[..., :1] * edge_x + share[..., 1:] * edge_y


def paste_back(frame: np.ndarray, face: np.ndarray, quad: np.ndarray, feather: float = 0.08) -> np.ndarray:
    """The inverse of `crop`: put face uint8 (S, S, 3) into a copy of frame uint8 (H, W, 3) at its quad.

    feather is the width of the blend at the quad's border as a share of its side; 0 gives a hard edge.
    """
    corner, edge_x, edge_y = _axes(quad)
    height, width = frame.shape[:2]
    corners = np.asarray(quad, dtype=np.float64)
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, [width, height])
    result = frame.copy()
    if (high <= low).any():
        return result

    # u, v in 0..1 across the quad, for every frame pixel of its bounding box.
    inverse = np.linalg.inv(np.stack([edge_x, edge_y], axis=1))
    columns, rows = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    uv = (np.stack([columns, rows], axis=-1) - corner) @ inverse.T
    border = np.minimum(uv, 1.0 - uv).min(axis=-1)
    ramp = np.clip(border / feather, 0.0, 1.0) if feather > 0 else (border >= 0).astype(np.float64)
    mask = (ramp * ramp * (3.0 - 2.0 * ramp))[..., None]

    size = face.shape[0]
    shrink = size / max(min(np.linalg.norm(edge_x), np.linalg.norm(edge_y)), 1.0)
    fine = max(1, math.ceil(shrink))
    matrix = inverse * size / fine
    start = inverse @ (low - 0.5 - corner) * size
    # Pillow paints black outside the source: a mirrored rim keeps the border pixels whole.
    rim = 2
    padded = np.pad(face, ((rim, rim), (rim, rim), (0, 0)), mode="edge")
    coefficients = (matrix[0, 0], matrix[0, 1], start[0] + rim, matrix[1, 0], matrix[1, 1], start[1] + rim)
    kernel = Image.Resampling.BICUBIC if fine == 1 else Image.Resampling.BILINEAR
    shape = (int(high[0] - low[0]) * fine, int(high[1] - low[1]) * fine)
    picture = Image.fromarray(padded).transform(shape, Image.Transform.AFFINE, coefficients, kernel)
    pasted = np.asarray(picture.reduce(fine) if fine > 1 else picture, dtype=np.float64)

    region = result[low[1] : high[1], low[0] : high[0]]
    region[...] = np.clip(np.rint(region + (pasted - region) * mask), 0, 255).astype(np.uint8)
    return result


def alignment_overlay(frame: np.ndarray, quad: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """frame uint8 (H, W, 3) with the quad (4, 2) and the landmarks (68, 2), both in frame px, drawn in: uint8 (H, W, 3)."""
    picture = Image.fromarray(np.ascontiguousarray(frame))
    draw = ImageDraw.Draw(picture)
    corners = [tuple(map(float, p)) for p in np.asarray(quad)]
    stroke = max(1, round(max(frame.shape[:2]) / 400))
    draw.line([*corners, corners[0]], fill=(255, 200, 0), width=2 * stroke)
    draw.line([corners[0], corners[3]], fill=(255, 60, 60), width=2 * stroke)  # the crop's upper edge
    for x, y in np.asarray(landmarks, dtype=float):
        draw.ellipse((x - stroke, y - stroke, x + stroke, y + stroke), fill=(60, 255, 90))
    return np.asarray(picture).copy()
