"""Old definitions, kept so that old papers can be placed; none of them should be used for anything new.

Each reproduces what a public script computes, flaw included; its docstring names the source and the flaw. Frames are
uint8 (H, W, 3), landmarks (T, 68, 2) px of the crop.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from encoders.geometry import MOUTH
from encoders.lmd import mouth_distance

LEGACY = ("legacy_lmd_sum", "legacy_lmd_mean", "legacy_psnr_uint8", "legacy_ssim_96")


def lmd_sum(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """ATVGnet's LMD, (T, 68, 2) twice -> (T,): sum over points 48-67 of |a_i - b_i|, each mouth's centroid removed.

    Source: Chen et al., "Hierarchical Cross-Modal Talking Face Generation with Dynamic Pixel-Wise Loss", CVPR 2019,
    evaluation_matrix.py of its repository. Flaw: a sum over 20 points, in px of whatever size the frames have, so it
    is 20 times the mean and grows with the resolution; there, frames without a face are left out.
    """
    return mouth_distance(predicted, true) * (MOUTH.stop - MOUTH.start)


def lmd_mean(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """LMD as first defined, on the mouth, (T, 68, 2) twice -> (T,): mean over points 48-67 of |a_i - b_i|, uncentred.

    Source: Chen et al., "Lip Movements Generation at a Glance", ECCV 2018, section 4 (its equation normalises by
    frames and points). Flaw: a moved head counts as wrong lips.
    """
    difference = np.asarray(predicted, dtype=np.float64) - np.asarray(true, dtype=np.float64)
    return np.linalg.norm(difference[..., MOUTH, :], axis=-1).mean(axis=-1)


def psnr_uint8(predicted: np.ndarray, true: np.ndarray) -> float:
    """PSNR = 20 log10(255 / sqrt(MSE)) of grey frames; difference and square taken in uint8 wrap modulo 256.

    Source: psnr_f in ATVGnet's evaluation_matrix.py, which gets uint8 images from OpenCV and makes them grey (while
    SSIM beside it is taken in colour). Flaw: 3 - 5 is 254, and 16 squared is 0: unrelated pictures score about 28 dB.
    Identical frames give 100.
    """
    a, b = (cv2.cvtColor(np.ascontiguousarray(x), cv2.COLOR_RGB2GRAY) for x in (predicted, true))
    mse = float(np.mean((a - b) ** 2))  # uint8 on purpose
    return 100.0 if mse == 0 else float(20 * np.log10(255.0 / np.sqrt(mse)))


def ssim_96(predicted: np.ndarray, true: np.ndarray) -> float:
    """SSIM at 96 px with scikit-image's defaults: a uniform 7 px window and the sample covariance, in colour.

    Source: the common habit of papers that follow Wav2Lip (Prajwal et al., ACM Multimedia 2020), whose frames are
    96 px, and score with a bare structural_similarity call. Flaw: size and window raise it: the same pair of videos
    scores 0.64 at 256 px with the Gaussian window and up to 0.94 this way.
    """
    size = (96, 96)
    a, b = (np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BOX)) for x in (predicted, true))
    value: Any = structural_similarity(a, b, channel_axis=-1, data_range=255)
    return float(value)


def legacy_figures(
    predicted: np.ndarray, true: np.ndarray, psnr_and_ssim: Sequence[tuple[float, float]]
) -> dict[str, float | None]:
    """LEGACY -> mean over the frames of a clip: landmarks (T, 68, 2) twice, and (psnr_uint8, ssim_96) of each frame."""
    lmd = [float(measure(predicted, true).mean()) if len(true) else None for measure in (lmd_sum, lmd_mean)]
    return dict(zip(LEGACY, [*lmd, *np.mean(psnr_and_ssim, axis=0).tolist()], strict=True))
