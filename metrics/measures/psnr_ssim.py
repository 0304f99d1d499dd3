"""PSNR and SSIM of single frames, uint8 RGB (H, W, 3), both in colour with data range 255.

Differences are taken in int32: in uint8 they wrap (3 - 5 = 254), which gives unrelated images a PSNR of 28 dB.
"""

import numpy as np

DATA_RANGE = 255.0
SIGMA, RADIUS = 1.5, 5  # of SSIM's Gaussian window, px


def _check(predicted: np.ndarray, true: np.ndarray) -> None:
    for name, image in (("predicted", predicted), ("true", true)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"the {name} frame must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if predicted.shape != true.shape:
        raise ValueError(f"frames differ in size: predicted {predicted.shape}, true {true.shape}")


def psnr(predicted: np.ndarray, true: np.ndarray) -> float:
    """PSNR = 10 log10(255^2 / MSE) in dB, over all pixels and channels; infinity for identical frames."""
    _check(predicted, true)
    mse = np.mean(np.square(predicted.astype(np.int32) - true))
    return float("inf") if mse == 0 else float(10 * np.log10(DATA_RANGE**2 / mse))


def ssim(predicted: np.ndarray, true: np.ndarray) -> float:
    """SSIM of Wang et al. 2004: Gaussian window of sigma 1.5 (11 px), population covariance, mean over channels.

    mean of (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x^2 + m_y^2 + C1)(s_x^2 + s_y^2 + C2)) over windows inside the image, with
    the window's means m and covariances s. scikit-image gives the same value within 1e-6 in four times the time.
    """
    import cv2

    _check(predicted, true)
    if np.array_equal(predicted, true):
        return 1.0
    if min(true.shape[:2]) <= 2 * RADIUS:
        raise ValueError(f"SSIM's window is 11 px, so it needs frames of at least 11 px, got {true.shape}")

    def windowed(image: np.ndarray) -> np.ndarray:
        blurred = cv2.GaussianBlur(image, (2 * RADIUS + 1, 2 * RADIUS + 1), SIGMA)
        return blurred[RADIUS:-RADIUS, RADIUS:-RADIUS]

    # Covariances do not depend on a constant, and without it float32 loses less in the differences below.
    half = np.float32(128)
    x, y = predicted.astype(np.float32) - half, true.astype(np.float32) - half
    mean_x, mean_y = windowed(x), windowed(y)
    squares = mean_x * mean_x + mean_y * mean_y
    covariance = windowed(x * y) - mean_x * mean_y
    variances = windowed(x * x + y * y) - squares
    c1, c2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
    mean_x, mean_y = mean_x + half, mean_y + half
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return float((luminance * (2 * covariance + c2) / (variances + c2)).mean(dtype=np.float64))


def identical_share(per_frame: list[float]) -> float | None:
    """Share of frames that are identical to the truth, so that their PSNR is infinite; None without frames."""
    return float(np.mean(np.isinf(per_frame))) if per_frame else None


def mean_psnr(per_frame: list[float]) -> float | None:
    """Mean over the frames that differ from the truth; None if no frame differs (the ground_truth row).

    One identical frame (the identity frame in the static row) would make the mean infinite; leaving it out can only
    lower the figure, and `identical_frames` reports the share left out. The alternative, 10 log10(255^2 / mean MSE), is
    finite but dominated by the worst frame, and no published number uses that definition.
    """
    finite = [value for value in per_frame if np.isfinite(value)]
    return float(np.mean(finite)) if finite else None
