"""The FFHQ crop: its definition, resampling and smoothing, and points in the frame and in the crop."""

import numpy as np
import pytest

from encoders.footage.align import (
    crop,
    ffhq_quad,
    interpolate_missing,
    points_in_frame,
    quad_of,
    quad_parts,
    smooth_quads,
    transform_points,
)

SQUARE = np.array([[0, 0], [0, 1], [1, 1], [1, 0]], dtype=np.float32)


def face(scale=1.0, angle=0.0, shift=(0.0, 0.0)):
    """Eyes at (-1, 0) and (1, 0), mouth at (0, 2), then scaled, turned and moved."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48] = [-1, 0], [1, 0]
    points[48:68] = [0, 2]
    points[48], points[54] = [-0.7, 2], [0.7, 2]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + shift


def smooth_picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(x * rng.uniform(0.01, 0.05) + rng.uniform(0, 6)) * np.sin(y * rng.uniform(0.01, 0.05))
        for _ in range(3)
    ]
    return np.rint(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_quad_of_an_upright_face():
    # x = e - rot90(m) = (2, 0) - (-2, 0), length max(2 * 2, 1.8 * 2) = 4, centre 0.1 * 2 below the eyes.
    expected = np.array([[-4, -3.8], [-4, 4.2], [4, 4.2], [4, -3.8]])
    np.testing.assert_allclose(ffhq_quad(face()), expected, atol=1e-6)


def test_quad_moves_with_the_face_and_broadcasts():
    still = ffhq_quad(face())
    angle, shift = 0.4, np.array([300.0, 200.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(ffhq_quad(face(30, angle, shift)), 30 * still @ turn.T + shift, rtol=1e-5)
    quads = ffhq_quad(np.stack([face(), face(2)])[None])
    assert quads.shape == (1, 2, 4, 2) and quads.dtype == np.float32
    np.testing.assert_allclose(quads[0, 1], 2 * still, rtol=1e-6)


def test_crop_of_the_whole_image_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop(image, 64 * SQUARE - 0.5, 64), image)
    np.testing.assert_array_equal(crop(image, 32 * SQUARE + [9.5, 3.5], 32), image[4:36, 10:42])


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
def test_shrinking_averages(factor):
    image = smooth_picture(64 * factor, 64 * factor)
    expected = image.reshape(64, factor, 64, factor, 3).mean(axis=(1, 3))
    result = crop(image, 64 * factor * SQUARE - 0.5, 64).astype(float)
    assert np.abs(result - expected)[2:-2, 2:-2].max() < 2


def test_shrinking_does_not_alias():
    y, x = np.mgrid[:600, :600]
    stripes = np.repeat((255 * ((x + y) % 2)).astype(np.uint8)[..., None], 3, axis=-1)
    result = crop(stripes, 590 * SQUARE + 3, 128)
    assert abs(result.mean() - 127.5) < 2 and result.std() < 8


@pytest.mark.parametrize(("scale", "angle"), [(9.0, 0.0), (25.0, 0.3), (60.0, -0.5)])
def test_points_and_pixels_are_transformed_alike(scale, angle):
    quad = ffhq_quad(face(scale, angle, (400.0, 380.0)))
    place = np.array([400.0 + scale, 380.0 + 0.5 * scale])
    y, x = np.mgrid[:800, :900]
    sigma = 0.3 * scale
    blob = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * sigma**2))
    result = crop(np.repeat(np.rint(blob).astype(np.uint8)[..., None], 3, axis=-1), quad)[..., 0].astype(
        float
    )
    rows, columns = np.mgrid[:256, :256]
    centre = np.array([(result * columns).sum(), (result * rows).sum()]) / result.sum()
    np.testing.assert_allclose(transform_points(place, quad), centre, atol=0.15)


def test_outside_the_frame_is_mirrored_and_the_inside_untouched():
    image = smooth_picture(100, 100)
    quad = 100 * SQUARE + [-30.5, -0.5]
    result = crop(image, quad, 100)
    np.testing.assert_array_equal(result[:, 30:], image[:, :70])
    np.testing.assert_allclose(
        result[5:-5, 29], image[5:-5, 1], atol=4
    )  # the border pixel itself is not repeated
    assert result[:, :30].std() > 1


def test_a_quad_far_outside_gives_a_crop_and_an_impossible_one_is_refused():
    image = smooth_picture(40, 60)
    assert crop(image, 80 * SQUARE - [70, 90], 32).shape == (32, 32, 3)
    with pytest.raises(ValueError, match="does not belong"):
        crop(image, 1e5 * SQUARE, 32)
    with pytest.raises(ValueError, match="finite"):
        crop(image, np.full((4, 2), np.nan), 32)


def test_smoothing_keeps_steady_motion_and_removes_jitter():
    steps = np.arange(60)[:, None, None]
    steady = 100 * SQUARE + 2.0 * steps
    np.testing.assert_allclose(smooth_quads(steady)[10:-10], steady[10:-10], atol=1e-3)
    rng = np.random.default_rng(0)
    noisy = np.stack([(100 + rng.normal()) * SQUARE + rng.normal(size=2) for _ in range(200)])
    smoothed = smooth_quads(noisy)
    side = np.linalg.norm(smoothed[:, 3] - smoothed[:, 0], axis=-1)
    assert side.std() < 0.4  # Gaussian, sigma 3: white noise shrinks to 1 / sqrt(2 sqrt(pi) 3) = 0.31
    assert smoothed.mean(axis=1).std(axis=0).max() < 0.75 * noisy.mean(axis=1).std(axis=0).max()
    np.testing.assert_allclose(smooth_quads(noisy, 0, 0), noisy, atol=1e-4)


def test_interpolation_of_missing_frames():
    values = np.array([[np.nan], [1.0], [np.nan], [np.nan], [4.0], [9.0]], dtype=np.float32)
    filled = interpolate_missing(values, np.isfinite(values[:, 0]))
    np.testing.assert_allclose(filled[:, 0], [1, 1, 2, 3, 4, 9])
    assert filled.dtype == np.float32
    with pytest.raises(ValueError, match="no detected frame"):
        interpolate_missing(values, np.zeros(6, bool))


def test_points_and_quads_are_inverted_exactly():
    rng = np.random.default_rng(4)
    quads = np.stack([ffhq_quad(face(40 + 5 * t, 0.1 * t, (100 + t, 90))) for t in range(5)])
    points = rng.uniform(0, 200, (5, 68, 2))
    inside = np.stack([transform_points(p, quad) for p, quad in zip(points, quads, strict=True)])
    np.testing.assert_allclose(points_in_frame(inside, quads), points, atol=1e-2)
    np.testing.assert_allclose(quad_of(*quad_parts(quads)), quads, atol=1e-4)
