"""PSNR and SSIM of single frames, uint8 RGB (H, W, 3), both in colour with data range 255.

Differences are taken in float64: in uint8 they wrap (3 - 5 = 254), which gives unrelated images a PSNR of 28 dB.
"""

from typing import Any

import numpy as np

DATA_RANGE = 255.0


def _check(predicted: np.ndarray, true: np.ndarray) -> None:
    for name, image in (("predicted", predicted), ("true", true)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"the {name} frame must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if predicted.shape != true.shape:
        raise ValueError(f"frames differ in size: predicted {predicted.shape}, true {true.shape}")


def psnr(predicted: np.ndarray, true: np.ndarray) -> float:
    """PSNR = 10 log10(255^2 / MSE) in dB, over all pixels and channels; infinity for identical frames."""
    _check(predicted, true)
    mse = np.mean((predicted.astype(np.float64) - true.astype(np.float64)) ** 2)
    return float("inf") if mse == 0 else float(10 * np.log10(DATA_RANGE**2 / mse))


def ssim(predicted: np.ndarray, true: np.ndarray) -> float:
    """SSIM of Wang et al. 2004: Gaussian window of sigma 1.5 (11 px), population covariance, mean over channels."""
    from skimage.metrics import structural_similarity

    _check(predicted, true)
    if np.array_equal(predicted, true):
        return 1.0  # saves 40 ms per frame in the ground_truth row
    value: Any = structural_similarity(
        true,
        predicted,
        data_range=DATA_RANGE,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


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
