"""Sound files of any rate, width and channel count -> 16 kHz mono float32.

S: samples, C: channels.
"""

import os
from collections.abc import Callable, Iterator
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


_BLOCK = 2**18  # samples that are read at once
Block = tuple[int, np.ndarray]  # rate, floating-point samples (C, S)


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
    if np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    samples_CS = samples[None] if samples.ndim == 1 else samples.T
    return blocks_to_mono16k(lambda: iter([(rate, samples_CS)]), name)


def blocks_to_mono16k(read: Callable[[], Iterator[Block]], name: str = "the sound") -> Waveform:
    """Mixes and resamples a sound that is read in blocks, so that only the result and one block are in memory.

    read: begins anew at each call and yields (rate, floating-point samples (C, S)), all of one rate. It is called a second
    time if the channels cancel each other (mix_channels), or if their number changes: then each block is mixed by itself.
    Raises AudioError as to_mono16k does.
    """
    channels: int | None = None
    energies, of_mean = np.zeros(1), 0.0

    def means() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal channels, energies, of_mean
        for rate, block_CS in read():
            if channels is None:
                channels, energies = len(block_CS), np.zeros(len(block_CS))
            if len(block_CS) != channels:
                raise _ChannelsChanged
            mean_S = block_CS.mean(axis=0, dtype=np.float64)
            energies += np.einsum("cs,cs->c", block_CS, block_CS, dtype=np.float64)
            of_mean += float(mean_S @ mean_S)
            yield rate, mean_S

    try:
        waveform = _resampled(means(), name)
    except _ChannelsChanged:
        return _resampled(((rate, mix_channels(block_CS)) for rate, block_CS in read()), name)
    if of_mean < CANCELLED**2 * energies.max():
        loudest = int(energies.argmax())
        return _resampled(((rate, block_CS[loudest]) for rate, block_CS in read()), name)
    return waveform


class _ChannelsChanged(Exception):
    """The number of channels changes within a sound."""


def _resampled(blocks: Iterator[tuple[int, np.ndarray]], name: str) -> Waveform:
    """(rate, samples (S,)) of one sound after another -> 16 kHz. Raises AudioError."""
    count, rate, resampler, parts = 0, RATE, None, []
    for rate, block_S in blocks:
        if rate <= 0:
            raise AudioError(f"{name} states a sampling rate of {rate} Hz; re-export it at 16000 Hz or more")
        if not np.isfinite(block_S).all():
            raise AudioError(
                f"{name} holds NaN or infinite samples; export it again, as 16-bit PCM for instance"
            )
        count += len(block_S)
        if rate == RATE:
            parts.append(block_S.astype(np.float32))
            continue
        resampler = resampler or soxr.ResampleStream(rate, RATE, 1, dtype="float64", quality="HQ")
        parts.append(resampler.resample_chunk(block_S.astype(np.float64)).astype(np.float32))
    if count == 0:
        raise AudioError(f"{name} holds no samples; record or export it again")
    if count < SHORTEST_S * rate:
        raise AudioError(
            f"{name} lasts {count / rate:.3f} s, which is too short to hold speech; give at least {SHORTEST_S} s"
        )
    if resampler is not None:
        parts.append(resampler.resample_chunk(np.zeros(0), last=True).astype(np.float32))
    length = (2 * count * RATE + rate) // (2 * rate)
    parts.append(np.zeros(max(0, length - sum(map(len, parts))), np.float32))
    return Waveform(np.concatenate(parts)[:length])


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
    opened = False

    def read() -> Iterator[Block]:
        nonlocal opened
        with soundfile.SoundFile(os.fsencode(path)) as file:  # type: ignore[arg-type]
            opened = True
            yield from ((file.samplerate, block.T) for block in _blocks(file))

    try:
        _check_whole(path)
        return blocks_to_mono16k(read, name=f"sound file {path}")
    except (
        OSError,
        soundfile.LibsndfileError,
        RuntimeError,
        TypeError,
    ) as error:  # TypeError: the suffix .raw
        kind = AudioError if opened else UnknownFormatError  # damage further on is not a matter of the format
        raise kind(
            f"{path} cannot be read as sound ({error}); give a wav, flac, ogg or mp3 file, "
            "or convert it with: ffmpeg -i INPUT -ac 1 -ar 16000 output.wav"
        ) from error


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """float32 (S, C)."""
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        yield block


def write_wav(path: str | os.PathLike[str], waveform: Waveform) -> None:
    """Writes 16-bit PCM atomically: to a temporary name, then renamed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        soundfile.write(
            os.fsencode(temporary),  # type: ignore[arg-type]
            np.clip(waveform.samples, -1, 1),
            waveform.rate,
            subtype="PCM_16",
            format="WAV",
        )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
