"""Target displacements of the 68 landmarks at full amplitude of each fitted axis, and the regions that must not change.

Target displacements are in units of the inter-ocular distance (iod), x to the right and y down. Shapes: N people,
A = len(FITTED) axes; landmarks [N, 68, 2] px of the 256 px crop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from encoders.bases.viseme_basis import MOUTH_AXES

# Axes fitted through landmarks; the head's axes are found by encoders/bases/attribute_regression.py.
FITTED: tuple[str, ...] = (*MOUTH_AXES, "blink")
UPPER_OUTER, LOWER_OUTER = (50, 51, 52), (58, 57, 56)
UPPER_INNER, LOWER_INNER = (61, 62, 63), (67, 66, 65)
LEFT_CORNER, RIGHT_CORNER = (48, 60), (54, 64)
CHIN = (6, 7, 8, 9, 10)
UPPER_LIDS, LOWER_LIDS = (37, 38, 43, 44), (41, 40, 47, 46)

# Axis -> (points, x, y). Press and blink have no entry, because their targets depend on the face (see `closing`).
TARGETS: dict[str, tuple[tuple[tuple[int, ...], float, float], ...]] = {
    # The jaw drops, and the corners of the mouth move in a little.
    "open": (
        (LOWER_INNER + LOWER_OUTER, 0, 0.30),
        ((59, 55), 0, 0.22),
        (CHIN, 0, 0.20),
        ((5, 11), 0, 0.12),
        (UPPER_INNER + UPPER_OUTER, 0, -0.03),
        (LEFT_CORNER, 0.03, 0.06),
        (RIGHT_CORNER, -0.03, 0.06),
    ),
    # The corners move apart.
    "wide": (
        (LEFT_CORNER, -0.09, -0.03),
        (RIGHT_CORNER, 0.09, -0.03),
        ((49, 59), -0.05, 0),
        ((53, 55), 0.05, 0),
    ),
    # The corners come together, and the lips part slightly.
    "round": (
        (LEFT_CORNER, 0.14, 0),
        (RIGHT_CORNER, -0.14, 0),
        ((49, 59), 0.08, 0),
        ((53, 55), -0.08, 0),
        (UPPER_INNER + UPPER_OUTER, 0, -0.03),
        (LOWER_INNER + LOWER_OUTER, 0, 0.05),
    ),
}


def iod_of(points_N682: Tensor) -> Tensor:
    """Inter-ocular distance, [N, 68, 2] -> [N]."""
    return (points_N682[:, 42:48].mean(1) - points_N682[:, 36:42].mean(1)).norm(dim=1)


def axis_targets() -> Tensor:
    """TARGETS as a tensor [A, 68, 2]."""
    targets = torch.zeros(len(FITTED), 68, 2)
    for axis, moves in TARGETS.items():
        for points, x, y in moves:
            targets[FITTED.index(axis), list(points)] = torch.tensor([x, y])
    return targets


def closing(points_N682: Tensor, iod_N: Tensor) -> dict[str, Tensor]:
    """Displacements that bring two contours together, [N, 68, 2] in iod: the lips for "press", the lids for "blink"."""
    result = {}
    for axis, upper, lower, share in (
        ("press", UPPER_INNER, LOWER_INNER, 0.5),
        ("blink", UPPER_LIDS, LOWER_LIDS, 0.85),
    ):
        gap = (points_N682[:, list(lower)] - points_N682[:, list(upper)]) / iod_N[:, None, None]
        gap[..., 0] = 0
        move = torch.zeros_like(points_N682)
        move[:, list(upper)] += share * gap
        move[:, list(lower)] -= (1 - share) * gap
        if axis == "press":  # the lips also become thinner: the outer contour follows
            move[:, list(UPPER_OUTER), 1] += share * gap[..., 1] + 0.02
            move[:, list(LOWER_OUTER), 1] -= (1 - share) * gap[..., 1] + 0.02
        result[axis] = move
    return result


def point_weights() -> Tensor:
    """[A, 68]: the mouth (for the blink also the eyes) weighs most, the outline of the jaw, which may move, least."""
    weight = torch.ones(len(FITTED), 68)
    weight[:, 0:17] = 0.5
    weight[:, 48:68] = 3.0
    weight[FITTED.index("blink"), 36:48] = 4.0
    return weight


def change_mask(points_N682: Tensor, iod_N: Tensor, side: int, blink_N: Tensor) -> Tensor:
    """1 where the image must not change, [N, 1, side, side] in [0, 1]: outside mouth and jaw, and eyes if they blink."""
    grid = (torch.arange(side, device=points_N682.device) + 0.5) * (256 / side)
    y, x = grid[None, :, None], grid[None, None, :]

    def blob(centre_N2: Tensor, width: float, height: float) -> Tensor:
        cx, cy = centre_N2[:, 0, None, None], centre_N2[:, 1, None, None]
        unit = iod_N[:, None, None]
        return torch.sigmoid(8 * (1 - (((x - cx) / (width * unit)) ** 2 + ((y - cy) / (height * unit)) ** 2)))

    mouth = points_N682[:, 48:68].mean(1)
    mouth = mouth + torch.stack([torch.zeros_like(iod_N), 0.25 * iod_N], 1)
    moving = blob(mouth, 0.85, 0.75)
    for eye in (slice(36, 42), slice(42, 48)):
        moving = torch.maximum(moving, blink_N[:, None, None] * blob(points_N682[:, eye].mean(1), 0.35, 0.3))
    return (1 - moving)[:, None]
