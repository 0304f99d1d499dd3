"""Sharpness and steadiness of the picture without a frame-by-frame reference.

Face crops are uint8 RGB (256, 256, 3), FFHQ-aligned.
"""

import numpy as np

from encoders.features.mouth_crop import MOUTH_PLACE

FACE_PLACE = (slice(74, 230), slice(46, 202))  # rows, columns: brows to chin, cheek to cheek
STILL_ROWS, BLOCK = 80, 16  # px: hair, forehead and background above the brows, in 5 x 16 blocks
# column: (definition, digits), as in metrics.report.report_files.COLUMNS
SHARPNESS: dict[str, tuple[str, int]] = {
    "mouth_sharpness": (
        "Laplacian variance of the 96 px around the mouth over that of the identity frame",
        3,
    ),
    "face_sharpness": ("the same of the face from brows to chin", 3),
    "still_flicker": (
        "RMS of x_t - (x_t-1 + x_t+1) / 2 over means of 16 px blocks above the brows, grey levels",
        3,
    ),
}


def laplacian_variance(face_crop: np.ndarray) -> dict[str, float]:
    """Variance of the Laplacian (3 x 3, grey levels squared) around the mouth and in the face."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(face_crop), cv2.COLOR_RGB2GRAY).astype(np.float32)
    places = {"mouth_sharpness": MOUTH_PLACE, "face_sharpness": FACE_PLACE}
    return {
        name: float(cv2.Laplacian(np.ascontiguousarray(grey[place]), cv2.CV_32F).var())
        for name, place in places.items()
    }


class Sharpness:
    """sharpness_t / sharpness of the identity frame, mean over the frames of one row of one clip.

    Blind to where detail belongs: noise, blocks of compression, and teeth that appear as the mouth opens count as
    sharpness too.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {"mouth_sharpness": 0.0, "face_sharpness": 0.0}
        self._n = 0

    def update(self, face_crop: np.ndarray) -> None:
        for name, value in laplacian_variance(face_crop).items():
            self._sums[name] += value
        self._n += 1

    def values(self, identity_crop: np.ndarray) -> dict[str, float | None]:
        """None without frames, or where the identity frame is flat."""
        reference = laplacian_variance(identity_crop)
        return {
            name: total / self._n / reference[name] if self._n and reference[name] > 0 else None
            for name, total in self._sums.items()
        }


class StillFlicker:
    """Flicker of what should be still: hair, forehead and background above the brows.

    Grey means of 16 px blocks suppress small shifts of texture; the difference from the mean of the two neighbouring
    frames removes every slow motion and change of light. Blind to flicker within a block and below the brows, and to
    drift; a fast movement of the head raises it, in the truth too.
    """

    def __init__(self) -> None:
        self._previous: list[np.ndarray] = []  # block means of the last two frames
        self._squares, self._n = 0.0, 0

    def update(self, face_crop: np.ndarray) -> None:
        import cv2

        grey = cv2.cvtColor(np.ascontiguousarray(face_crop[:STILL_ROWS]), cv2.COLOR_RGB2GRAY)
        rows, columns = (n // BLOCK for n in grey.shape)
        means = grey[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK).mean(axis=(1, 3))
        if len(self._previous) == 2:
            before, middle = self._previous
            self._squares += float(((middle - (before + means) / 2) ** 2).mean())
            self._n += 1
        self._previous = [*self._previous[-1:], means]

    @property
    def value(self) -> float | None:
        """Grey levels of 255; None for fewer than three frames."""
        return float(np.sqrt(self._squares / self._n)) if self._n else None
