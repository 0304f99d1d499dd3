"""Per-frame image measures on uint8 RGB, (H, W, 3): PSNR and SSIM, both in colour, data range 255.

uint8 arrays wrap when subtracted (3 - 5 = 254), which gives unrelated pictures a PSNR of 28 dB: every
difference here is taken in float64.
"""

import cv2
import numpy as np

DATA_RANGE = 255.0
WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, px


def _check(predicted: np.ndarray, true: np.ndarray) -> None:
    for name, image in (("predicted", predicted), ("true", true)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"the {name} frame must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if predicted.shape != true.shape:
        raise ValueError(f"frames differ in size: predicted {predicted.shape}, true {true.shape}")


def psnr(predicted: np.ndarray, true: np.ndarray) -> float:
    """PSNR = 10 log10(255^2 / MSE) in dB, over all pixels and channels; identical frames give infinity."""
    _check(predicted, true)
    mse = np.mean((predicted.astype(np.float64) - true.astype(np.float64)) ** 2)
    return float("inf") if mse == 0 else float(10 * np.log10(DATA_RANGE**2 / mse))


def ssim(predicted: np.ndarray, true: np.ndarray) -> float:
    """SSIM of Wang et al. 2004: Gaussian window of sigma 1.5 (11 px), population covariance, mean over channels.

    SSIM = (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x^2 + m_y^2 + C1)(s_x^2 + s_y^2 + C2)), C1 = (0.01 * 255)^2,
    C2 = (0.03 * 255)^2, averaged over all places where the window fits. It is scikit-image's figure (with
    gaussian_weights=True, use_sample_covariance=False) to rounding, in a third of the time.
    """
    _check(predicted, true)
    if min(true.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs a frame of at least {WINDOW} px, got {true.shape}")
    if np.array_equal(predicted, true):
        return 1.0
    offsets = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    kernel /= kernel.sum()
    inside = slice(WINDOW // 2, -(WINDOW // 2))

    def smooth(image: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel)[inside, inside]

    x, y = predicted.astype(np.float64), true.astype(np.float64)
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def mean_psnr(per_frame: list[float]) -> float | None:
    """Mean over the frames that differ from the truth; None if none does (the ground-truth row).

    A single identical frame (the identity frame in the static row) would make the mean infinite; leaving it out
    can only lower the figure.
    """
    finite = [value for value in per_frame if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None
