"""Sound files of any rate, width and channel count -> 16 kHz mono float32.

S: samples, C: channels.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from audio.timing import RATE
from audio.whole_file import missing_end, wav_data

# Seconds; a shorter sound has less than one syllable, and edge effects of the resampler dominate
SHORTEST_S = 0.1
# Amplitude, -60 dB of full scale; a sound whose peak is lower holds no speech
SILENT = 1e-3
# RMS of the mean of the channels over that of the loudest channel; below it the channels cancel each other
CANCELLED = 0.1


class AudioError(ValueError):
    """A sound that cannot be used; the message names it and the remedy."""


class UnknownFormatError(AudioError):
    """A file that libsndfile cannot open; another reader may know its format."""


@dataclass(frozen=True)
class Waveform:
    """samples: float32 (S,), nominally in [-1, 1], finite, mono; rate: samples per second (16 kHz throughout)."""

    samples: np.ndarray
    rate: int = RATE

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise ValueError(
                f"expected float32 samples of shape (S,), got {self.samples.dtype} {self.samples.shape}"
            )

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def silent(self) -> bool:
        """Whether the sound is silent throughout."""
        return bool(np.abs(self.samples).max(initial=0) < SILENT)


def mix_channels(samples_CS: np.ndarray) -> np.ndarray:
    """(C, S) floating point -> (S,): the mean of the channels, or the loudest channel if they cancel each other.

    Channels of opposite phase, from a wrongly wired microphone for instance, have a mean of silence.
    """
    mean = samples_CS.mean(axis=0)
    energies = np.einsum("cs,cs->c", samples_CS, samples_CS, dtype=np.float64)
    if np.einsum("s,s->", mean, mean, dtype=np.float64) < CANCELLED**2 * energies.max():
        return samples_CS[energies.argmax()]
    return mean


def to_mono16k(samples: np.ndarray, rate: int, name: str = "the sound") -> Waveform:
    """Mixes the channels (mix_channels) and resamples to 16 kHz.

    samples: (S,) or (S, C), floating point in [-1, 1], or signed integers (scaled by their full range).
    The result has round(S * 16000 / rate) samples, so that timing is exact at any source rate.
    Raises AudioError (naming `name`) for no samples, NaN or infinity, and less than 0.1 s; silence is accepted.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise ValueError(f"expected samples (S,) or (S, C), got shape {samples.shape}")
    if rate <= 0:
        raise AudioError(f"{name} states a sampling rate of {rate} Hz; re-export it at 16000 Hz or more")
    if samples.size == 0:
        raise AudioError(f"{name} holds no samples; record or export it again")
    if len(samples) < SHORTEST_S * rate:
        raise AudioError(
            f"{name} lasts {len(samples) / rate:.3f} s, which is too short to hold speech; give at least {SHORTEST_S} s"
        )
    if np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    mono = samples.astype(np.float64)
    mono = mono if mono.ndim == 1 else mix_channels(mono.T)
    if not np.isfinite(mono).all():
        raise AudioError(f"{name} holds NaN or infinite samples; export it again, as 16-bit PCM for instance")
    length = (2 * len(mono) * RATE + rate) // (2 * rate)
    if rate != RATE:
        mono = soxr.resample(mono, rate, RATE, quality="HQ")
        mono = np.pad(mono, (0, max(0, length - len(mono))))[:length]
    return Waveform(np.ascontiguousarray(mono, dtype=np.float32))


def _check_whole(path: Path) -> None:
    """AudioError if the end of a sound file is missing; UnknownFormatError if a wav states a length of 0 before sound,
    which libsndfile reads as no sound and FFmpeg reads to the end.
    """
    if (how := missing_end(path)) is not None:
        raise AudioError(f"sound file {path} is cut off: {how}; export or copy it again")
    wav = wav_data(path)
    if wav is not None and wav.stated == 0 and wav.held > 0:
        raise UnknownFormatError(
            f"the header of sound file {path} states a length of 0; convert it with: "
            "ffmpeg -i INPUT -ac 1 -ar 16000 output.wav"
        )


def read_waveform(path: str | os.PathLike[str]) -> Waveform:
    """Reads a sound file (any format of libsndfile: wav, flac, ogg, mp3, ...) as 16 kHz mono.

    Raises AudioError, with a message of one sentence, for a file that is missing, empty, not sound, damaged, cut off or
    too short; UnknownFormatError if libsndfile cannot open it.
    """
    path = Path(path)
    if not path.exists():
        raise AudioError(f"sound file {path} does not exist; check the path")
    if path.is_dir():
        raise AudioError(f"{path} is a folder; give one sound file")
    if path.stat().st_size == 0:
        raise AudioError(f"sound file {path} is empty (0 bytes); record or export it again")
    kind = UnknownFormatError
    try:
        _check_whole(path)
        with soundfile.SoundFile(os.fsencode(path)) as file:
            kind = AudioError  # opened: damage further on is not a matter of the format
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except (
        OSError,
        soundfile.LibsndfileError,
        RuntimeError,
        TypeError,
    ) as error:  # TypeError: the suffix .raw
        raise kind(
            f"{path} cannot be read as sound ({error}); give a wav, flac, ogg or mp3 file, "
            "or convert it with: ffmpeg -i INPUT -ac 1 -ar 16000 output.wav"
        ) from error
    return to_mono16k(samples, rate, name=f"sound file {path}")


def write_wav(path: str | os.PathLike[str], waveform: Waveform) -> None:
    """Writes 16-bit PCM atomically: to a temporary name, then renamed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        soundfile.write(
            os.fsencode(temporary),
            np.clip(waveform.samples, -1, 1),
            waveform.rate,
            subtype="PCM_16",
            format="WAV",
        )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
