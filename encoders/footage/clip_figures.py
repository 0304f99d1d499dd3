"""Measures of a prepared clip, by which unsuitable clips are left out: detection rate, size of the face, sharpness."""

import numpy as np

from encoders.geometry import inter_ocular
from encoders.records import FrameClip

SAMPLED = 8  # frames on which sharpness is measured, evenly spaced


def clip_figures(clip: FrameClip) -> dict[str, float]:
    """detected: share of frames with a face in the crop. face_px: distance between the eyes in px of the source, median
    over frames. sharpness: variance of the Laplacian of the crop's luminance, median over frames; an enlarged or blurred
    face has a low one.
    """
    import cv2

    crop_side = clip.frames.shape[1]
    side_T = np.linalg.norm(clip.quads[:, 1] - clip.quads[:, 0], axis=1)
    chosen = np.unique(np.linspace(0, len(clip) - 1, SAMPLED).round().astype(int))
    grey = [cv2.cvtColor(np.asarray(clip.frames[int(i)]), cv2.COLOR_RGB2GRAY) for i in chosen]
    return {
        "detected": round(float(clip.detected.mean()), 4),
        "face_px": round(float(np.median(inter_ocular(clip.landmarks) * side_T / crop_side)), 1),
        "sharpness": round(float(np.median([cv2.Laplacian(image, cv2.CV_64F).var() for image in grey])), 1),
    }
