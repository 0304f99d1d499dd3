"""Speech features: for each video frame one window of log-mel, MFCC or speech-encoder rows, centred on it to the
sample.

S samples, R rows (one per hop), T video frames, K rows in a frame's window, M numbers in a row.

Row j is analysed around sample j * hop + hop / 2, so rows r t ... r t + r - 1 (r = 640 / hop) cover exactly the sound
of video frame t, and K rows with (K - r) / 2 before and after them are centred on sample 640 t + 320.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from audio.chunked_whisper import Chunks
from audio.log_mel import log_mel
from audio.mfcc import mfcc
from audio.speech_encoder import HOP as ENCODER_HOP
from audio.speech_encoder import SpeechEncoder, SpeechEncoderError, load_speech_encoder
from audio.timing import FPS, RATE, SAMPLES_PER_FRAME, frames_of_samples, samples_of_frames
from audio.waveform import Waveform

FIXED_STATISTICS = {
    "logmel": (-4.0, 3.0),
    "mfcc": (0.0, 12.0),
}  # typical mean and std of log-mel speech near full scale


@dataclass(unsafe_hash=True)
class FeatureConfig:
    """The rows of a frame's feature window, and their normalisation (audio.*)."""

    # "logmel" (audio/log_mel.py), "mfcc" (audio/mfcc.py, ATVGnet's) or "encoder" (audio/speech_encoder.py, hop 320).
    kind: Literal["logmel", "mfcc", "encoder"] = "logmel"
    n_mels: int = 80  # log-mel: bands
    n_fft: int = 800  # log-mel: samples in an analysis window, 50 ms
    hop: int = 160  # samples from one row to the next, 10 ms: 4 rows per video frame
    fmin: float = 55.0  # log-mel: lowest frequency in Hz
    fmax: float = 7600.0  # log-mel: highest frequency in Hz
    preemphasis: float = 0.97  # c of y[n] = x[n] - c x[n - 1]; the usual value in speech recognition
    context_ms: int = 280  # length of the window around each video frame: 7 video frames, as ATVGnet
    # "clip": each number of a row by its mean and std over the clip, which removes loudness, microphone and much of
    # the speaker's timbre, so that stage 1 generalises to unseen speakers. "fixed": by constants, for streaming, where
    # the clip is not known in advance. "none".
    normalise: Literal["clip", "fixed", "none"] = "clip"
    # Log-mel: floor in dB below the clip's loudest band, so that digital silence has the features of a quiet room. With
    # "fixed" the floor is a constant, because the loudest band is not known in advance.
    dynamic_range_db: float = 60.0
    n_filters: int = 26  # MFCC: bands
    lifter: int = 22  # MFCC: length of the lifter; 0: no lifter
    n_coefficients: int = 12  # MFCC: c_1 ... c_12, without c_0
    # Encoder: its folder, or its name on the Hugging Face hub.
    encoder: str = field(default="", metadata={"keyed": False})
    # Encoder: hidden layers whose rows are joined, 0 before the first transformer layer, -1 the last; stage 1's front end
    # learns how to mix them.
    layers: tuple[int, ...] = (-1,)
    dims: int = 768  # encoder: its width
    # Encoder, Whisper only. 0: each row is computed from the whole sound. Otherwise the rows are computed in chunks of
    # this length, each from the sound that begins past_ms before the chunk and ends future_ms after it, so that live
    # sound has the same features as a recording (audio/live_features.py). Multiples of 20 ms.
    chunk_ms: int = 0
    past_ms: int = 1800
    future_ms: int = 80
    # Encoder: hash of its weights, set when stage 1 is trained, so that prediction accepts no other encoder; "": any.
    encoder_sha256: str = ""

    def __post_init__(self) -> None:
        self.layers = tuple(self.layers)
        if not self.layers:
            raise ValueError("audio.layers is empty; name at least one hidden layer, such as [-1]")
        if self.kind == "encoder" and (self.hop != ENCODER_HOP or self.normalise == "fixed" or self.dims < 1):
            raise ValueError(
                f"audio.kind=encoder needs audio.hop={ENCODER_HOP}, normalise clip or none and dims of at least 1"
            )
        chunk = (self.chunk_ms, self.past_ms, self.future_ms)
        if min(chunk) < 0 or any(ms * RATE % (1000 * ENCODER_HOP) for ms in chunk):
            raise ValueError(
                "audio.chunk_ms, past_ms and future_ms must be multiples of 20, and not negative"
            )
        if self.chunk_ms and (self.kind != "encoder" or self.normalise == "clip"):
            raise ValueError("audio.chunk_ms needs audio.kind=encoder and another normalise than clip")
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
        return {"logmel": self.n_mels, "mfcc": self.n_coefficients, "encoder": self.dims * len(self.layers)}[
            self.kind
        ]

    @property
    def chunks(self) -> Chunks | None:
        """The chunks that the encoder hears one by one; None: it hears the whole sound."""
        if not self.chunk_ms:
            return None
        return Chunks(
            *(ms * RATE // (1000 * ENCODER_HOP) for ms in (self.chunk_ms, self.past_ms, self.future_ms))
        )

    @property
    def beyond(self) -> int:
        """Rows that the window of a frame has before the frame, and as many after it."""
        return (self.rows - self.rows_per_frame) // 2

    @property
    def lookahead_ms(self) -> float | None:
        """The sound that is needed after the end of a frame, at most; None: the whole sound may be needed."""
        if self.normalise == "clip" or (self.kind, self.normalise) == ("logmel", "none"):
            return None  # log-mel's floor is relative to the loudest band
        if self.kind == "encoder" and self.chunks is None:
            return None
        after = self.beyond
        if (chunks := self.chunks) is not None:
            # Row 0 of the first chunk is the first one of the silence before the clip, `beyond` rows before its start.
            last = [(t + 1) * self.rows_per_frame + 2 * self.beyond for t in range(chunks.rows)]
            ends = [-(-row // chunks.rows) * chunks.rows + chunks.future for row in last]
            after += max(end - row for row, end in zip(last, ends, strict=True))
        return after * self.hop * 1000 / RATE


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
    """Feature windows of a clip; the sound is padded with silence at both ends.

    num_frames: T of the video that the sound belongs to (the sound is padded with silence or trimmed to it);
      None: ceil(S * 25 / 16000).
    device: where a speech encoder computes.
    Raises ValueError for another rate than 16 kHz or no frames.
    """
    samples_S = _fitted(waveform, num_frames)
    return _windows(_rows(samples_S, config, device), config)


def extract_features_packed(
    waveforms: Sequence[Waveform],
    config: FeatureConfig,
    num_frames: Sequence[int],
    device: torch.device | str = "cpu",
) -> list[AudioFeatures]:
    """Features of several short sounds. A speech encoder hears as many as fit into one of its inputs, which saves most of
    its time; each sound then has others around it, as a sentence in running speech has. Other features are those of
    extract_features.
    """
    if config.kind != "encoder" or config.chunks is not None:
        pairs = zip(waveforms, num_frames, strict=True)
        return [extract_features(waveform, config, frames, device) for waveform, frames in pairs]
    margin = config.beyond * config.hop
    sounds = [np.pad(_fitted(w, n), margin) for w, n in zip(waveforms, num_frames, strict=True)]
    rows = checked_encoder(config, device).rows_of_several(sounds, config.layers)
    return [_windows(rows_RM, config) for rows_RM in rows]


def _fitted(waveform: Waveform, num_frames: int | None) -> np.ndarray:
    """The samples of exactly num_frames video frames, trimmed or padded with silence."""
    if waveform.rate != RATE:
        raise ValueError(f"expected {RATE} Hz, got {waveform.rate}; use audio.waveform.to_mono16k first")
    frames = frames_of_samples(len(waveform.samples)) if num_frames is None else num_frames
    if frames < 1:
        raise ValueError(f"expected at least one video frame, got {frames}")
    length = samples_of_frames(frames)
    samples_S = waveform.samples[:length]
    return np.pad(samples_S, (0, length - len(samples_S)))


def _windows(rows_RM: np.ndarray, config: FeatureConfig) -> AudioFeatures:
    """Rows of a clip and of the silence around it, normalised and cut into one window per video frame."""
    # Normalisation
    inside_RM = rows_RM[config.beyond : len(rows_RM) - config.beyond]
    if config.normalise == "clip":
        # With the lower limit of the std, a silent clip gives zeros instead of amplified rounding noise.
        rows_RM = (rows_RM - inside_RM.mean(0)) / np.maximum(inside_RM.std(0), 0.1)
    elif config.normalise == "fixed":
        mean, std = FIXED_STATISTICS[config.kind]
        rows_RM = (rows_RM - mean) / std

    # One window per video frame
    windows_RMK = np.lib.stride_tricks.sliding_window_view(rows_RM, config.rows, axis=0)
    windows_TMK = windows_RMK[:: config.rows_per_frame]
    return AudioFeatures(np.ascontiguousarray(windows_TMK.transpose(0, 2, 1), dtype=np.float32))


def _rows(samples_S: np.ndarray, config: FeatureConfig, device: torch.device | str) -> np.ndarray:
    """Rows of the chosen kind, (R + 2 beyond, M): also those of silence on either side of the clip that the windows of its
    first and last frame reach into.
    """
    c, beyond = config, config.beyond
    if c.kind == "encoder":
        return checked_encoder(c, device).rows(np.pad(samples_S, beyond * c.hop), c.layers, c.chunks)
    if c.kind == "mfcc":
        return mfcc(samples_S, c.hop, c.n_filters, c.n_coefficients, c.lifter, c.preemphasis, beyond)
    dynamic_range_db = None if c.normalise == "fixed" else c.dynamic_range_db
    return log_mel(
        samples_S, c.hop, c.n_fft, c.n_mels, c.fmin, c.fmax, c.preemphasis, dynamic_range_db, beyond
    )


def checked_encoder(config: FeatureConfig, device: torch.device | str = "cpu") -> SpeechEncoder:
    """The speech encoder that the config names.

    Raises SpeechEncoderError for one of another width, or another network than that of config.encoder_sha256.
    """
    encoder = load_speech_encoder(config.encoder, str(device))
    known = range(-encoder.layers - 1, encoder.layers + 1)
    if encoder.width != config.dims or any(layer not in known for layer in config.layers):
        raise SpeechEncoderError(
            f"audio.encoder={config.encoder} has {encoder.layers} layers of {encoder.width} numbers: set "
            f"audio.dims={encoder.width} and audio.layers in 0 .. {encoder.layers} (or -1, the last)."
        )
    if config.encoder_sha256 not in ("", encoder.sha256):
        raise SpeechEncoderError(
            f"audio.encoder={config.encoder} is another network (sha256 {encoder.sha256[:12]}) than stage 1 was trained "
            f"with ({config.encoder_sha256[:12]}): use that one, or train stage 1 anew."
        )
    return encoder
