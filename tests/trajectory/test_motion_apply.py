"""Motion tracks applied to codes and frames."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from small_encoders import small_generator

from encoders.bases.viseme_basis import load_viseme_basis
from stylegan2.protocol import sample_w
from stylegan2.render import render
from trajectory.motion.apply import (
    EYES,
    INTER_OCULAR,
    LIDS,
    LIMITS,
    blinking,
    eye_mask,
    latent_blinks,
    latent_motion,
    limited,
    moved,
)
from trajectory.motion.tracks import POSE_AXES, MotionTrack

BASIS = load_viseme_basis()


def track(**values: float) -> MotionTrack:
    """One frame."""
    pose = np.array([[values.get(axis, 0.0) for axis in POSE_AXES]], np.float32)
    return MotionTrack(pose, np.array([values.get("lids", 0.0)], np.float32))


def spots(size: int, *places: tuple[float, float]) -> np.ndarray:
    """A grey frame with soft white spots at (x, y), shares of its size."""
    picture = np.zeros((size, size))
    for x, y in places:
        picture[round(y * size - 0.5), round(x * size - 0.5)] = 2000
    return (60 + gaussian_filter(picture, 2))[..., None].repeat(3, 2).clip(0, 255).astype(np.uint8)


def place(frame: np.ndarray) -> np.ndarray:
    """Centre of the brightest spot, shares of the size (x, y)."""
    weight = np.clip(frame[..., 0].astype(float) - 70, 0, None)
    y, x = np.indices(weight.shape)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() / len(frame) + 0.5 / len(frame)


def test_no_motion_changes_neither_codes_nor_frames():
    still = MotionTrack.at_rest(3)
    assert not latent_motion(still, BASIS).any() and not latent_blinks(still, BASIS).any()
    frames = [np.random.default_rng(i).integers(0, 255, (32, 32, 3)).astype(np.uint8) for i in range(3)]
    assert all(a is b for a, b in zip(moved(frames, still.pose), frames, strict=True))


def test_yaw_pitch_and_lids_move_their_axes_alone():
    for move, values, axis, weight in (
        (latent_motion, {"yaw": 1.0}, "yaw", 8 * np.tanh(1 / 8) / 7),
        (latent_motion, {"pitch": -1.0}, "pitch", -4.5 * np.tanh(1 / 4.5) / 3),
        (latent_blinks, {"lids": 1.0}, "blink", LIDS),
    ):
        expected = weight * BASIS.directions[BASIS.names.index(axis)]
        np.testing.assert_allclose(move(track(**values), BASIS)[0], expected, atol=1e-5)
    others = track(roll=3, x=0.1, y=0.1, scale=0.1)
    assert not latent_motion(others, BASIS).any() and not latent_blinks(others, BASIS).any()
    assert not latent_motion(track(lids=1), BASIS).any()


@pytest.mark.parametrize("size", [32, 64])
def test_a_blink_changes_the_eyes_alone(size):
    generator = small_generator(size)
    w_TLD = sample_w(generator, 3, 0).numpy()
    blinks_TLD = np.zeros_like(w_TLD)
    blinks_TLD[1] = w_TLD[2] - w_TLD[1]
    plain = list(render(generator, w_TLD))
    first, blink, last = blinking(plain, generator, w_TLD, blinks_TLD)
    assert first is plain[0] and last is plain[2]
    mask = eye_mask(size, size)[..., 0]
    eye = round((EYES[0] + INTER_OCULAR / 2) * size), round(EYES[1] * size)
    assert mask[eye[1], eye[0]] == 1 and mask.mean() < 0.06
    np.testing.assert_array_equal(mask, mask[:, ::-1])
    np.testing.assert_array_equal(blink[mask == 1], plain[2][mask == 1])
    np.testing.assert_array_equal(blink[mask == 0], plain[1][mask == 0])


@pytest.mark.parametrize("size", [64, 256])
def test_shift_size_and_roll_move_the_picture_as_named(size):
    eyes = np.array(EYES)
    frame = spots(size, (0.7, EYES[1]))
    before = place(frame)

    def after(**values: float) -> np.ndarray:
        return place(next(moved([frame], track(**values).pose)))

    shift = np.array([0.05, -0.1])
    found = after(x=shift[0], y=shift[1]) - before
    np.testing.assert_allclose(found, INTER_OCULAR * limited(track(x=0.05, y=-0.1).pose)[0, 3:5], atol=0.003)
    np.testing.assert_allclose((after(scale=0.05) - eyes)[0], (before - eyes)[0] * np.exp(0.05), atol=0.004)
    down = (after(roll=5.0) - eyes)[1] - (before - eyes)[1]
    assert down == pytest.approx(0.2 * np.sin(np.radians(10 * np.tanh(0.5))), abs=0.004)  # clockwise


def test_no_border_becomes_black():
    white = np.full((48, 48, 3), 200, np.uint8)
    extreme = track(roll=90, x=9, y=-9, scale=-9).pose
    np.testing.assert_array_equal(next(moved([white], extreme)), white)


def test_large_motion_stays_within_the_limits_and_small_motion_is_kept():
    limits = np.array([LIMITS[axis] for axis in POSE_AXES])
    assert (np.abs(limited(np.full((1, 6), -1e6))) <= limits).all()
    np.testing.assert_allclose(limited(0.1 * limits[None]), 0.1 * limits[None], rtol=0.005)


def test_frames_and_track_must_have_one_length():
    with pytest.raises(ValueError):
        list(moved([np.zeros((8, 8, 3), np.uint8)] * 2, np.zeros((3, 6))))
