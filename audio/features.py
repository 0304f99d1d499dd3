"""Speech features: one window of log-mel or MFCC rows per video frame, centred on it to the sample.

S samples, R rows (one per hop), T video frames, K rows in a frame's window, M mel bins or coefficients.

Row j is analysed around sample j * hop + hop / 2, so rows r t .. r t + r - 1 (r = 640 / hop) are exactly the sound
of video frame t, and K rows with (K - r) / 2 before and after them are centred on sample 640 t + 320.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import librosa
import numpy as np
import scipy.fft
import torch

from audio.speech_encoder import HOP as ENCODER_HOP
from audio.speech_encoder import SpeechEncoder, SpeechEncoderError, load_speech_encoder
from audio.timing import FPS, RATE, SAMPLES_PER_FRAME, frames_of_samples, samples_of_frames
from audio.waveform import Waveform

MFCC_WINDOW = 400  # python_speech_features: 25 ms, rectangular
MFCC_FFT = 512
BLOCK = 1000  # windows whose spectra are held at once: 10 s
QUIET = 1e-5  # log-mel floor of last resort, -100 dB of full scale
FIXED_STATISTICS = {"logmel": (-4.0, 3.0), "mfcc": (0.0, 12.0)}  # typical mean, std of speech near full scale


@dataclass(unsafe_hash=True)
class FeatureConfig:
    """What a frame's window holds.

    kind: "logmel" (log magnitudes, Slaney mel bands) or "mfcc" (python_speech_features conventions, as ATVGnet:
      25 ms rectangular window, 26 filters over 0-8000 Hz, lifter 22, c0 dropped).
    context_ms: length of the window around each video frame; 280 ms is 7 video frames.
    normalise: "clip" (each bin by its own mean and std over the clip: takes out loudness, microphone and much of the
      speaker's timbre, which is what lets a voice never heard in training drive the mouth), "fixed" (constants;
      needed where the clip is not known in advance, as in streaming) or "none".
    dynamic_range_db: log-mel is floored this far below the clip's loudest bin, so that digital silence and a quiet
      room look alike (with "fixed" the floor is a constant, since the loudest bin is not known in advance).
    kind "encoder": a pre-trained speech encoder (audio/speech_encoder.py), hop 320. encoder: its folder or name on the
      Hugging Face hub; layer: of its hidden states, -1 the last; dims: its width; encoder_sha256: of the
      network, filled in when stage 1 is trained ("" = any).
    """

    kind: Literal["logmel", "mfcc", "encoder"] = "logmel"
    n_mels: int = 80
    n_fft: int = 800
    hop: int = 160
    fmin: float = 55.0
    fmax: float = 7600.0
    preemphasis: float = 0.97
    context_ms: int = 280
    normalise: Literal["clip", "fixed", "none"] = "clip"
    dynamic_range_db: float = 60.0
    n_filters: int = 26
    lifter: int = 22
    n_coefficients: int = 12
    encoder: str = field(default="", metadata={"keyed": False})
    layer: int = -1
    dims: int = 768
    encoder_sha256: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("logmel", "mfcc", "encoder"):
            raise ValueError(f"audio.kind is {self.kind!r}; it must be 'logmel', 'mfcc' or 'encoder'")
        if self.kind == "encoder" and (self.hop != ENCODER_HOP or self.normalise == "fixed" or self.dims < 1):
            raise ValueError(
                f"audio.kind=encoder needs audio.hop={ENCODER_HOP}, normalise clip or none and dims of at least 1"
            )
        if self.normalise not in ("clip", "fixed", "none"):
            raise ValueError(f"audio.normalise is {self.normalise!r}; it must be 'clip', 'fixed' or 'none'")
        if self.hop <= 0 or self.hop % 2 or SAMPLES_PER_FRAME % self.hop:
            raise ValueError(f"audio.hop is {self.hop}; it must be even and divide {SAMPLES_PER_FRAME}")
        if self.n_fft <= 0 or self.n_fft % 2:
            raise ValueError(f"audio.n_fft is {self.n_fft}; it must be even and positive")
        if not 0 <= self.fmin < self.fmax <= RATE / 2:
            raise ValueError(
                f"audio.fmin, fmax are {self.fmin}, {self.fmax}; need 0 <= fmin < fmax <= {RATE // 2}"
            )
        if not 0 <= self.preemphasis < 1:
            raise ValueError(f"audio.preemphasis is {self.preemphasis}; it must lie in [0, 1)")
        if self.n_mels < 1 or self.dynamic_range_db <= 0:
            raise ValueError("audio.n_mels and audio.dynamic_range_db must be positive")
        if not 1 <= self.n_coefficients < self.n_filters:
            raise ValueError(
                f"audio.n_coefficients is {self.n_coefficients}; it must lie in 1 .. n_filters - 1 = {self.n_filters - 1}"
            )
        samples = self.context_ms * RATE
        surplus = samples // (1000 * self.hop) - self.rows_per_frame
        if samples % (1000 * self.hop) or surplus < 0 or surplus % 2:
            raise ValueError(
                f"audio.context_ms is {self.context_ms}; it must be {1000 // FPS} ms plus a multiple of "
                f"{2000 * self.hop / RATE:g} ms, so that the window is centred on the frame"
            )

    @property
    def rows_per_frame(self) -> int:
        return SAMPLES_PER_FRAME // self.hop

    @property
    def rows(self) -> int:
        """K: rows in one frame's window."""
        return self.context_ms * RATE // (1000 * self.hop)

    @property
    def width(self) -> int:
        """M: numbers in one row."""
        return {"logmel": self.n_mels, "mfcc": self.n_coefficients, "encoder": self.dims}[self.kind]


@dataclass(frozen=True)
class AudioFeatures:
    """values: float32 (T, K, M), one window of K rows per video frame."""

    values: np.ndarray


def extract_features(
    waveform: Waveform,
    config: FeatureConfig,
    num_frames: int | None = None,
    device: torch.device | str = "cpu",
) -> AudioFeatures:
    """Feature windows of a clip, silence beyond both its ends.

    num_frames: T of the video this sound belongs to (the sound is padded with silence or trimmed to it);
      None: ceil(S * 25 / 16000).
    device: where a speech encoder computes.
    Raises ValueError for another rate than 16 kHz or no frames.
    """
    if waveform.rate != RATE:
        raise ValueError(f"expected {RATE} Hz, got {waveform.rate}; use audio.waveform.to_mono16k first")
    frames = frames_of_samples(len(waveform.samples)) if num_frames is None else num_frames
    if frames < 1:
        raise ValueError(f"expected at least one video frame, got {frames}")
    length = samples_of_frames(frames)
    samples_S = waveform.samples[:length]
    samples_S = np.pad(samples_S, (0, length - len(samples_S)))

    beyond = (config.rows - config.rows_per_frame) // 2
    if config.kind == "encoder":
        around_S = np.pad(samples_S, beyond * config.hop)
        rows_RM = checked_encoder(config, device).rows(around_S, config.layer)
    else:
        rows_RM = (log_mel if config.kind == "logmel" else mfcc)(samples_S, config, beyond)
    inside_RM = rows_RM[beyond : len(rows_RM) - beyond]
    if config.normalise == "clip":
        # A silent clip has no spread; the floor keeps it at zero instead of blowing up rounding noise.
        rows_RM = (rows_RM - inside_RM.mean(0)) / np.maximum(inside_RM.std(0), 0.1)
    elif config.normalise == "fixed":
        mean, std = FIXED_STATISTICS[config.kind]
        rows_RM = (rows_RM - mean) / std

    windows_RMK = np.lib.stride_tricks.sliding_window_view(rows_RM, config.rows, axis=0)[
        :: config.rows_per_frame
    ]
    return AudioFeatures(np.ascontiguousarray(windows_RMK.transpose(0, 2, 1), dtype=np.float32))


def log_mel(samples_S: np.ndarray, config: FeatureConfig, beyond: int = 0) -> np.ndarray:
    """ln(max(mel . |STFT|, floor)): (R + 2 beyond, M); the Hann window is scaled so a full-scale sine is near 0.5."""
    windows_RN = _windows(samples_S, config, config.n_fft, beyond)
    hann_N = librosa.filters.get_window("hann", config.n_fft).astype(np.float32)
    hann_N /= hann_N.sum()
    filters_FM = _mel_filters(config.n_fft, config.n_mels, config.fmin, config.fmax).T
    mel_RM = _in_blocks(windows_RN, lambda x: np.abs(np.fft.rfft(x * hann_N, axis=1)) @ filters_FM)
    floor = QUIET
    if config.normalise != "fixed":
        floor = max(QUIET, float(mel_RM.max()) * 10 ** (-config.dynamic_range_db / 20))
    return np.log(np.maximum(mel_RM, floor)).astype(np.float32)


def mfcc(samples_S: np.ndarray, config: FeatureConfig, beyond: int = 0) -> np.ndarray:
    """Liftered cepstra c1 .. c_n of 26 triangular bands: (R + 2 beyond, M), python_speech_features' arithmetic.

    c_n = (1 + L/2 sin(pi n / L)) * DCT-II(ln(filters . |FFT|^2 / 512))_n
    """
    windows_RN = _windows(samples_S, config, MFCC_WINDOW, beyond)
    filters_FB = triangular_filters(config.n_filters).T
    bands_RB = _in_blocks(
        windows_RN, lambda x: (np.abs(np.fft.rfft(x, MFCC_FFT, axis=1)) ** 2 / MFCC_FFT) @ filters_FB
    )
    # The floor stands in for the library's eps at zero energy; it is well below one step of 16-bit sound.
    cepstra_RB = np.asarray(scipy.fft.dct(np.log(np.maximum(bands_RB, 1e-12)), type=2, axis=1, norm="ortho"))
    n = np.arange(1, config.n_coefficients + 1)
    lift_M = (
        1 + config.lifter / 2 * np.sin(np.pi * n / config.lifter) if config.lifter > 0 else np.ones(len(n))
    )
    return (cepstra_RB[:, 1 : config.n_coefficients + 1] * lift_M).astype(np.float32)


def checked_encoder(config: FeatureConfig, device: torch.device | str = "cpu") -> SpeechEncoder:
    """The speech encoder that the config names.

    Raises SpeechEncoderError for one of another width, or another network than that of config.encoder_sha256.
    """
    encoder = load_speech_encoder(config.encoder, str(device))
    if encoder.width != config.dims or not -encoder.layers - 1 <= config.layer <= encoder.layers:
        raise SpeechEncoderError(
            f"audio.encoder={config.encoder} has {encoder.layers} layers of {encoder.width} numbers: set "
            f"audio.dims={encoder.width} and audio.layer in 0 .. {encoder.layers} (or -1, the last)."
        )
    if config.encoder_sha256 not in ("", encoder.sha256):
        raise SpeechEncoderError(
            f"audio.encoder={config.encoder} is another network (sha256 {encoder.sha256[:12]}) than stage 1 was trained "
            f"with ({config.encoder_sha256[:12]}): use that one, or train stage 1 anew."
        )
    return encoder


def _in_blocks(windows_RN: np.ndarray, bands: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """bands of all windows, BLOCK rows at a time: spectra of an hour of sound would not fit into memory."""
    rows = range(0, len(windows_RN), BLOCK)
    return np.concatenate([bands(windows_RN[first : first + BLOCK]) for first in rows])


def _windows(samples_S: np.ndarray, config: FeatureConfig, width: int, beyond: int) -> np.ndarray:
    """Pre-emphasised windows centred on samples (j + 1/2) hop, j = -beyond .. S / hop + beyond - 1: (R + 2 beyond, width).

    y[n] = x[n] - c x[n - 1], over the silence around the clip too.
    """
    hop = config.hop
    reach = beyond * hop + max(0, (width - hop) // 2)
    padded = np.pad(samples_S, reach + 1)
    emphasised = padded[1:] - np.float32(config.preemphasis) * padded[:-1]  # [i] is sample i - reach
    start = (reach - beyond * hop) + hop // 2 - width // 2
    rows = len(samples_S) // hop + 2 * beyond
    return np.lib.stride_tricks.sliding_window_view(emphasised, width)[start::hop][:rows]


@lru_cache(maxsize=8)
def _mel_filters(n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Slaney triangles of unit height, (M, n_fft / 2 + 1)."""
    return librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, norm=None)


@lru_cache(maxsize=8)
def triangular_filters(n_filters: int) -> np.ndarray:
    """HTK-mel triangles with corners rounded down to FFT bins, 0-8000 Hz: (B, 257)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, n_filters + 2) / 2595) - 1)
    corners = np.floor((MFCC_FFT + 1) * hertz / RATE)
    bins_F = np.arange(MFCC_FFT // 2 + 1)
    filters_BF = np.zeros((n_filters, len(bins_F)), np.float32)
    for band, (left, centre, right) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        rising, falling = (bins_F >= left) & (bins_F < centre), (bins_F >= centre) & (bins_F < right)
        filters_BF[band, rising] = (bins_F[rising] - left) / (centre - left)
        filters_BF[band, falling] = (right - bins_F[falling]) / (right - centre)
    return filters_BF
