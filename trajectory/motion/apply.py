"""Applies a motion track: yaw and pitch through W+, eyelids through W+ about the eyes alone, roll, shift and size by moving
the rendered frames.

Shapes: T frames, L rows of W+, D = 512.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from encoders.bases.viseme_basis import VisemeBasis
from stylegan2.protocol import Generator
from stylegan2.render import render
from trajectory.motion.tracks import POSE_AXES, MotionTrack

# Degrees at weight 1 of the basis' axes, measured on the landmarks of people who were rendered; single people differ from
# this by half of it.
DEGREES = {"yaw": 7.0, "pitch": 3.0}
# Larger motion is compressed towards these limits, in the units of MotionTrack.pose. Beyond them W+ distorts the face,
# and the mirrored border of the moved frame becomes conspicuous.
LIMITS = {"yaw": 8.0, "pitch": 4.5, "roll": 10.0, "x": 0.3, "y": 0.3, "scale": 0.15}
# Weight of the axis "blink" at full closure, and the exponent by which closure follows from the weight: half the weight
# closes the lids by more than half.
LIDS, LIDS_EXPONENT = 1.0, 1.5
# Of FFHQ's crop (encoders.footage.align.ffhq_quad), as shares of its size, measured on the same people.
INTER_OCULAR, EYES = 0.25, (0.5, 0.47)  # the distance between the eyes, and the middle between them
# An eye's ellipse, as shares of the crop: half its width and height, below the brow; outside, up to 1.6 times as far, a
# blink's frame fades into the one with open eyes.
EYE, FADE = (0.075, 0.035), 0.6


def limited(pose_TP: np.ndarray) -> np.ndarray:
    """The pose (T, 6) within LIMITS, which small motion hardly changes: limit tanh(pose / limit)."""
    limits = np.array([LIMITS[axis] for axis in POSE_AXES])
    return limits * np.tanh(pose_TP / limits)


def latent_motion(track: MotionTrack, basis: VisemeBasis) -> np.ndarray:
    """Yaw and pitch of a track -> displacement of W+, float32 (T, L, D)."""
    pose_TP = limited(track.pose)
    weights_TA = np.zeros((len(track), len(basis.names)), np.float32)
    for axis, degrees in DEGREES.items():
        weights_TA[:, basis.names.index(axis)] = pose_TP[:, POSE_AXES.index(axis)] / degrees
    return basis.displacement(weights_TA)


def latent_blinks(track: MotionTrack, basis: VisemeBasis) -> np.ndarray:
    """Lids of a track -> displacement of W+, float32 (T, L, D)."""
    weights_TA = np.zeros((len(track), len(basis.names)), np.float32)
    weights_TA[:, basis.names.index("blink")] = LIDS * track.lids**LIDS_EXPONENT
    return basis.displacement(weights_TA)


def blinking(
    frames: Iterable[np.ndarray], generator: Generator, w_TLD: np.ndarray, blinks_TLD: np.ndarray
) -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3) of these codes, in which the eyes alone are those of w + blinks; the axis that closes the lids
    also draws the brows together, removes beards and changes the face's shape. Frames without a blink are passed on.
    """
    closed = render(generator, (w + blink for w, blink in zip(w_TLD, blinks_TLD, strict=True) if blink.any()))
    mask = None
    for frame, blink in zip(frames, blinks_TLD, strict=True):
        if blink.any():
            mask = eye_mask(*frame.shape[:2]) if mask is None else mask
            frame = np.rint(frame + mask * (next(closed).astype(np.float32) - frame)).astype(np.uint8)
        yield frame


def eye_mask(height: int, width: int) -> np.ndarray:
    """float32 (H, W, 1): 1 in the eyes' ellipses of an FFHQ crop, 0 away from them."""
    y, x = np.mgrid[:height, :width]
    x, y = (x + 0.5) / width - EYES[0], (y + 0.5) / height - EYES[1]
    distance = np.hypot((np.abs(x) - INTER_OCULAR / 2) / EYE[0], y / EYE[1])
    ramp = np.clip((1 + FADE - distance) / FADE, 0, 1)
    return (ramp**2 * (3 - 2 * ramp))[..., None].astype(np.float32)


def moved(frames: Iterable[np.ndarray], pose_TP: np.ndarray) -> Iterator[np.ndarray]:
    """Frames uint8 (H, W, 3), turned, shifted and sized by the roll, x, y and scale of a pose (T, 6) about the eyes.

    What comes in at the border is the mirrored picture. A frame without motion is passed on as it is.
    """
    import cv2

    columns = [POSE_AXES.index(axis) for axis in ("roll", "x", "y", "scale")]
    for frame, (roll, x, y, scale) in zip(frames, limited(pose_TP)[:, columns], strict=True):
        if not (roll or x or y or scale):
            yield frame
            continue
        height, width = frame.shape[:2]
        # In OpenCV an integer is the centre of a pixel, and a positive angle turns anticlockwise.
        centre = EYES[0] * width - 0.5, EYES[1] * height - 0.5
        matrix = cv2.getRotationMatrix2D(centre, -float(roll), float(np.exp(scale)))
        matrix[:, 2] += INTER_OCULAR * width * x, INTER_OCULAR * width * y
        yield cv2.warpAffine(
            frame, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
