"""The public SyncNet (Chung and Zisserman 2016, "Out of Time: Automated Lip Sync in the Wild"), for LSE-C and LSE-D.

Parameter names are those of the published syncnet_v2.model, so the file loads strictly. Layer sizes and input
conventions follow the authors' release; the code is our own. Shapes: N windows of 0.2 s, T frames, R rows of MFCC.
"""

import numpy as np
import torch
from torch import Tensor, nn

from audio.mfcc import MFCC_FFT, MFCC_WINDOW, triangular_filters
from audio.sync.lip_sync_net import WINDOW
from audio.timing import RATE
from audio.waveform import Waveform

DIM = 1024
SIDE = 224  # px of the face picture
HOP = RATE // 100
ROWS = 20  # MFCC vectors in a window, 10 ms apart
COEFFICIENTS = 13
INT16 = 32768.0  # the published network was trained on 16-bit integer samples


class SyncNet(nn.Module):
    """Convolutions and dense layers for sound (aud) and for lips (lip); 13.6 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_flat(1, 64, 3, padding=1),
            nn.MaxPool2d(1),
            *_flat(64, 192, 3, padding=1),
            nn.MaxPool2d(3, (1, 2)),
            *_flat(192, 384, 3, padding=1),
            *_flat(384, 256, 3, padding=1),
            *_flat(256, 256, 3, padding=1),
            nn.MaxPool2d(3, 2),
            *_flat(256, 512, (5, 4)),
        )
        self.netfcaud = _dense()
        self.netfclip = _dense()
        self.netcnnlip = nn.Sequential(
            *_deep(3, 96, (WINDOW, 7, 7), stride=2),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_deep(96, 256, (1, 5, 5), stride=2, padding=1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_deep(256, 256, (1, 3, 3), padding=1),
            *_deep(256, 256, (1, 3, 3), padding=1),
            *_deep(256, 256, (1, 3, 3), padding=1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_deep(256, 512, (1, 6, 6)),
        )

    def sounds(self, mfcc_N1CR: Tensor) -> Tensor:
        """MFCC [N, 1, 13, 20] -> [N, 1024]."""
        return self.netfcaud(self.netcnnaud(mfcc_N1CR).flatten(1))

    def lips(self, frames_N35HW: Tensor) -> Tensor:
        """Five frames [N, 3 (blue, green, red), 5, 224, 224], values 0-255 -> [N, 1024]."""
        return self.netfclip(self.netcnnlip(frames_N35HW).flatten(1))


def _flat(inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()]


def _deep(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    """A 3-D convolution with norm and ReLU; stride and padding apply to the two image axes only."""
    strides, pads = (1, stride, stride), (0, padding, padding)
    return [nn.Conv3d(inputs, outputs, kernel, strides, pads), nn.BatchNorm3d(outputs), nn.ReLU()]


def _dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, DIM))


def mfcc_13(samples_S: np.ndarray) -> np.ndarray:
    """16 kHz sound in [-1, 1] -> float32 (R, 13), row j from sample 160 j on: python_speech_features' defaults.

    Unlike audio.mfcc.mfcc: log energy in place of c_0, 16-bit integer samples, and windows that start (instead of
    being centred) at fixed multiples of the hop.
    """
    import scipy.fft

    x = np.asarray(samples_S, dtype=np.float64) * INT16
    x = np.concatenate([x[:1], x[1:] - 0.97 * x[:-1]])
    rows = 1 + max(0, -(-(len(x) - MFCC_WINDOW) // HOP))
    x = np.pad(x, (0, max(0, (rows - 1) * HOP + MFCC_WINDOW - len(x))))
    windows = np.lib.stride_tricks.sliding_window_view(x, MFCC_WINDOW)[::HOP][:rows]
    power = np.abs(np.fft.rfft(windows, MFCC_FFT, axis=1)) ** 2 / MFCC_FFT
    tiny = np.finfo(float).eps
    bands = np.maximum(power @ triangular_filters(26).T, tiny)
    cepstra = np.asarray(scipy.fft.dct(np.log(bands), type=2, axis=1, norm="ortho"))[:, :COEFFICIENTS]
    cepstra *= 1 + 11 * np.sin(np.pi * np.arange(COEFFICIENTS) / 22)
    cepstra[:, 0] = np.log(np.maximum(power.sum(axis=1), tiny))
    return cepstra.astype(np.float32)


def sound_windows(waveform: Waveform, frames: int) -> np.ndarray:
    """float32 (T - 4, 1, 13, 20): the 20 rows that start with each frame; beyond the sound there is silence."""
    rows_needed = (frames - 1) * 4 + ROWS
    samples = np.pad(waveform.samples, (0, max(0, rows_needed * HOP + MFCC_WINDOW - len(waveform.samples))))
    rows = mfcc_13(samples)
    windows = np.lib.stride_tricks.sliding_window_view(rows, ROWS, axis=0)[::4][: frames - WINDOW + 1]
    return np.ascontiguousarray(windows[:, None])


@torch.inference_mode()
def embed_sound(net: SyncNet, waveform: Waveform, frames: int, batch: int = 64) -> np.ndarray:
    """Sound embeddings float32 (T - 4, 1024) of one clip of T = frames."""
    device = next(net.parameters()).device
    windows = torch.from_numpy(sound_windows(waveform, frames))
    return torch.cat([net.sounds(part.to(device)).cpu() for part in windows.split(batch)]).numpy()
