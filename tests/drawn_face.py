"""68 landmarks with a given lip opening, for test detectors that derive landmarks from the brightness of a frame."""

import numpy as np


def landmarks(level: int) -> np.ndarray:
    """(68, 2) px of a 256 px frame: inner lips `level` px apart, the mouth level / 2 px wider than at rest."""
    points = np.full((68, 2), 128, np.float32)
    points[36:42, 0], points[42:48, 0], points[36:48, 1] = 88, 168, 110
    points[62, 1], points[66, 1] = 190 - level / 2, 190 + level / 2
    points[48, 0], points[54, 0] = 110 - level / 4, 146 + level / 4
    return points


def random_face(n: int) -> np.ndarray:
    """Landmarks (n, 68, 2) px, the same in every frame: random points, eyes 80 px apart, each 20 px wide and 8 px open."""
    points = np.tile(np.random.default_rng(1).uniform(60, 200, (68, 2)), (n, 1, 1))
    points[:, 36:42], points[:, 42:48] = (88, 110), (168, 110)
    for first in (36, 42):
        points[:, first : first + 6] += np.array([(-10, 0), (-4, -4), (4, -4), (10, 0), (4, 4), (-4, 4)])
    return points
