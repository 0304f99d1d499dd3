"""HDR video (PQ and HLG, ITU-R BT.2100) -> SDR pictures (sRGB), so that a face has the colours an SDR recording has.

White in HDR is 203 cd/m2 (ITU-R BT.2408), as bright as SDR white; what is brighter, such as reflections, is compressed.
"""

import numpy as np

PQ, HLG = 16, 18  # codes of the transfer functions in a video (ITU-T H.273)
WHITE = 203.0  # cd/m2
KNEE = 0.8  # share of white from which on brightness is compressed
_TO_BT709 = np.array(  # linear RGB of BT.2020 -> of BT.709 (ITU-R BT.2087)
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of linear RGB of BT.2020


def sdr_picture(image: np.ndarray, transfer: int) -> np.ndarray:
    """uint16 (H, W, 3) RGB of BT.2020 with the transfer function PQ or HLG -> uint8 (H, W, 3) sRGB."""
    if transfer == PQ:
        light = _PQ_LIGHT[image]
    else:
        scene = _HLG_SCENE[image]
        light = 1000.0 * (scene @ _LUMINANCE)[..., None] ** 0.2 * scene  # on a display of 1000 cd/m2
    linear = np.maximum(light @ _TO_BT709.T / WHITE, 0.0)
    above = np.maximum(linear - KNEE, 0.0)
    linear = np.minimum(linear, KNEE) + (1 - KNEE) * (1 - np.exp(-above / (1 - KNEE)))
    return _SRGB[np.round(linear * 65535).astype(np.uint16)]


def _pq_light(code: np.ndarray) -> np.ndarray:
    """BT.2100 table 4: code in [0, 1] -> cd/m2."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = code ** (1 / m2)
    return 10000.0 * (np.maximum(root - c1, 0.0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg_scene(code: np.ndarray) -> np.ndarray:
    """BT.2100 table 5: code in [0, 1] -> light of the scene in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)


def _srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: linear in [0, 1] -> code in [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# The value of each 16-bit code, because powers of every pixel would take most of the time.
_CODES = np.arange(65536) / 65535
_PQ_LIGHT = _pq_light(_CODES).astype(np.float32)
_HLG_SCENE = _hlg_scene(_CODES).astype(np.float32)
_SRGB = np.round(255 * _srgb(_CODES)).astype(np.uint8)
