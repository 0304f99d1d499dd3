"""Pasting a crop back into its frame: the inverse of cropping, the mask and the colours."""

import numpy as np
import pytest

from encoders.footage.align import crop, quad_of, transform_points
from encoders.footage.paste_back import ColourMatch, lower_face_mask, paste

ROWS, COLUMNS = np.mgrid[:220, :300]
PIXELS = np.stack([COLUMNS, ROWS], axis=2)  # (x, y) of each pixel of SMOOTH
WAVES = np.sin(0.03 * COLUMNS[..., None] + [0, 1, 2]) * np.sin(0.025 * ROWS[..., None] + [2, 0, 1])
SMOOTH = np.rint(127.5 + 110 * WAVES).astype(np.uint8)
NO_TINT = np.zeros((64, 64, 3), np.float32)


def turned_quad(half, angle=0.3, centre=(150.3, 110.7)):
    x = half * np.array([np.cos(angle), np.sin(angle)])
    return quad_of(np.array(centre), x, np.array([-x[1], x[0]]))


def square_mask():
    mask = np.zeros((256, 256), np.float32)
    mask[40:216, 40:216] = 1.0
    return mask


def face_points():
    """68 points of a schematic face in the 256 px crop: jaw on a half circle, the nose's base, and a mouth."""
    points = np.full((68, 2), 128.0)
    angles = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([128 + 75 * np.cos(angles), 130 + 90 * np.sin(angles)], axis=1)
    points[31:36] = np.stack([np.linspace(110, 146, 5), np.full(5, 160)], axis=1)
    points[48:68] = np.stack([np.linspace(100, 156, 20), np.full(20, 185)], axis=1)
    return points


@pytest.mark.parametrize(("half", "size"), [(40, 256), (80, 256), (95, 256), (60, 512)])
def test_a_crop_pasted_back_gives_the_frame(half, size):
    frame, quad = SMOOTH, turned_quad(half)
    pasted = paste(frame[::-1].copy(), crop(frame, quad, size), square_mask(), quad, NO_TINT)
    at = transform_points(PIXELS, quad)
    inside = ((at > 45) & (at < 210)).all(axis=2)
    assert inside.sum() > 1000
    difference = np.abs(pasted[inside].astype(int) - frame[inside])
    assert difference.mean() < 0.7 and difference.max() <= 3


def test_pixels_outside_the_mask_are_the_frames_own():
    frame = np.random.default_rng(0).integers(0, 256, (220, 300, 3), dtype=np.uint8)
    before, quad = frame.copy(), turned_quad(80)
    black = np.zeros((256, 256, 3), np.uint8)
    pasted = paste(frame, black, square_mask(), quad, NO_TINT)
    at = transform_points(PIXELS, quad)
    outside = ((at < 37) | (at > 218)).any(axis=2)
    np.testing.assert_array_equal(pasted[outside], before[outside])
    np.testing.assert_array_equal(frame, before)  # the frame itself is not changed
    assert pasted[~outside].mean() < 0.2 * before[~outside].mean()


def test_a_crop_that_reaches_beyond_the_frame():
    frame, quad = SMOOTH, turned_quad(100, centre=(20.0, 200.0))
    difference = paste(frame, crop(frame, quad), square_mask(), quad, NO_TINT).astype(int) - frame
    assert np.abs(difference).max() <= 3
    far = turned_quad(50, centre=(900.0, 900.0))
    np.testing.assert_array_equal(
        paste(frame, np.zeros((256, 256, 3), np.uint8), square_mask(), far, NO_TINT), frame
    )


def test_the_mask_is_soft_and_covers_the_lower_face_alone():
    mask = lower_face_mask(face_points())
    assert mask.shape == (256, 256) and mask.min() == 0.0 and mask.max() == pytest.approx(1.0)
    assert mask[185, 100:157].min() > 0.99  # the mouth
    assert mask[:120].max() == 0.0  # the eyes and brows
    assert np.abs(np.diff(mask, axis=0)).max() < 0.12 and np.abs(np.diff(mask, axis=1)).max() < 0.12


def test_the_mask_ends_inside_the_crop_and_covers_several_faces():
    low = face_points() + np.array([0, 50])  # its chin lies below the crop
    mask = lower_face_mask(low)
    assert max(mask[-1].max(), mask[0].max(), mask[:, 0].max(), mask[:, -1].max()) == 0.0
    both = lower_face_mask(np.stack([face_points(), face_points() + np.array([0, 15])]))
    assert (both >= lower_face_mask(face_points()) - 1e-6).all() and both[228, 128] > 0.9


def test_colours_on_the_rim_are_corrected_and_the_mouth_does_not_count():
    mask, shading = lower_face_mask(face_points()), np.linspace(-20, 20, 256)[None, :, None]
    true = np.full((256, 256, 3), 120, np.uint8)
    generated = np.clip(true + shading, 0, 255).astype(np.uint8)
    generated[178:192, 110:146] = 0  # an open mouth
    corrected = generated + ColourMatch()(true, generated, mask).repeat(4, 0).repeat(4, 1)
    rim = (mask > 0.3) & (mask < 0.7)
    assert np.abs(corrected[rim] - 120).mean() < 2.0 < np.abs(generated[rim] - 120.0).mean()
    assert np.abs(corrected[185, 128]).max() < 20  # the mouth stays dark


def test_the_colour_field_follows_slowly():
    mask, true = lower_face_mask(face_points()), np.full((256, 256, 3), 120, np.uint8)
    inside = mask[::4, ::4] > 0.5
    match = ColourMatch()
    first = match(true, true, mask)
    second = match(true, true - 20, mask)
    assert np.abs(first).max() == 0.0
    assert second[inside].mean() == pytest.approx(4.0, abs=0.2)
    for _ in range(30):
        last = match(true, true - 20, mask)
    assert last[inside].mean() == pytest.approx(20.0, abs=0.5)
