"""Definitions of earlier papers, reported by `metrics=legacy` for comparison with their numbers; not for new results.

Each reproduces the computation of a public script, including its error; the docstrings name source and error. Frames
are uint8 (H, W, 3), landmarks (T, 68, 2) px of the crop.
"""

from typing import Any

import numpy as np
from PIL import Image

from encoders.geometry import MOUTH
from encoders.lmd import mouth_distance
from metrics.measures.lip_motion import uncentred_mouth_distance

# column: (definition, digits), as in metrics.report.report_files.COLUMNS
LEGACY: dict[str, tuple[str, int]] = {
    "legacy_lmd_sum": ("ATVGnet: sum over points 48-67, centroid removed, px", 1),
    "legacy_lmd_mean": ("Chen et al. 2018: mean over points 48-67, not centred, px", 2),
    "legacy_psnr_uint8": ("ATVGnet: grey, uint8 arithmetic that wraps", 2),
    "legacy_ssim_96": ("96 px, uniform 7 px window", 3),
}


def lmd_sum(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """ATVGnet's LMD, (T, 68, 2) twice -> (T,): sum over points 48-67 of |a_i - b_i|, each mouth's centroid removed.

    Source: Chen et al., "Hierarchical Cross-Modal Talking Face Generation with Dynamic Pixel-Wise Loss", CVPR 2019,
    evaluation_matrix.py of its repository. Flaw: a sum over 20 points in px of the given frame size, so it is 20 times
    the mean and grows with the resolution; that script also leaves out frames without a face.
    """
    return mouth_distance(predicted, true) * (MOUTH.stop - MOUTH.start)


def psnr_uint8(predicted: np.ndarray, true: np.ndarray) -> float:
    """PSNR = 20 log10(255 / sqrt(MSE)) of grey frames; difference and square are taken in uint8 and wrap modulo 256.

    Source: psnr_f in ATVGnet's evaluation_matrix.py, which converts OpenCV's uint8 images to grey (its SSIM is in
    colour). Flaw: 3 - 5 is 254, and 16 squared is 0: unrelated images score about 28 dB. Identical frames give 100.
    """
    import cv2

    a, b = (cv2.cvtColor(np.ascontiguousarray(x), cv2.COLOR_RGB2GRAY) for x in (predicted, true))
    mse = float(np.mean((a - b) ** 2))  # wraps in uint8, as in the source
    return 100.0 if mse == 0 else float(20 * np.log10(255.0 / np.sqrt(mse)))


def ssim_96(predicted: np.ndarray, true: np.ndarray) -> float:
    """SSIM at 96 px with scikit-image's defaults: a uniform 7 px window and the sample covariance, in colour.

    Source: common in papers that follow Wav2Lip (Prajwal et al., ACM Multimedia 2020), whose frames are 96 px, and that
    call structural_similarity without options. Flaw: size and window raise the value: the same pair of videos scores
    0.64 at 256 px with the Gaussian window and up to 0.94 with this definition.
    """
    from skimage.metrics import structural_similarity

    size = (96, 96)
    a, b = (np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BOX)) for x in (predicted, true))
    value: Any = structural_similarity(a, b, channel_axis=-1, data_range=255)
    return float(value)


class LegacyFigures:
    """The legacy figures of one row of one clip, updated frame by frame; without any frame there are none."""

    def __init__(self) -> None:
        self._psnr_and_ssim: list[tuple[float, float]] = []

    def update(self, predicted: np.ndarray, true: np.ndarray) -> None:
        self._psnr_and_ssim.append((psnr_uint8(predicted, true), ssim_96(predicted, true)))

    def values(self, predicted: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
        """Means over the frames of the clip; predicted, true: landmarks (T, 68, 2)."""
        if not self._psnr_and_ssim:
            return {}
        distances = (lmd_sum, uncentred_mouth_distance)
        lmd = [float(distance(predicted, true).mean()) if len(true) else None for distance in distances]
        return dict(zip(LEGACY, [*lmd, *np.mean(self._psnr_and_ssim, axis=0).tolist()], strict=True))
