"""Synthesises speech with phoneme times by espeak-ng, called through ctypes in the library of the espeakng-loader
wheel.

espeak-ng is GPL-3, so the wheel is an optional dependency, imported only when speech is synthesised.
The library keeps one state per process, and earlier speech changes later speech (oscillator phases, the flutter of the
pitch, segments a millisecond longer). `synthesise` therefore loads and unloads it on each call, which takes 7 ms, so
that the same request gives the same samples in any order. Two threads must not call it at the same time.
"""

import _ctypes
import contextlib
import ctypes
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from audio.waveform import Waveform, to_mono16k

# speak_lib.h: output mode, flags, event types and parameters.
SYNCHRONOUS, UTF8, PHONEME_EVENTS, DONT_EXIT = 2, 1, 0x0001, 0x8000
EVENT_LIST_END, EVENT_PHONEME = 0, 7
RATE_WPM, VOLUME, PITCH, PITCH_RANGE = 1, 2, 3, 4
SLOWEST, FASTEST = 80, 320  # words per minute: espeak's minimum, and the rate above which it drops phonemes


@dataclass(frozen=True)
class Phoneme:
    """name: espeak's mnemonic without stress marks ("p", "aI", "@"; "_" is a pause).

    start, end: seconds from the first sample. espeak marks a voiceless plosive at its burst: the silence of its
    closure lies before `start`, inside the phoneme before it. stress: 0 none, 1 secondary, 2 primary.
    """

    name: str
    start: float
    end: float
    stress: int = 0


@dataclass(frozen=True)
class Utterance:
    """16 kHz speech and its phonemes in order of time; each ends where the next begins."""

    waveform: Waveform
    phonemes: tuple[Phoneme, ...]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def synthesise(
    text: str, voice: str = "en", rate: int = 165, pitch: int = 50, intonation: int = 50
) -> Utterance:
    """`text` as speech.

    voice: language and variant, "en-gb-scotland+f3"; rate: words per minute, 80-320; pitch, intonation: 0-100, 50 is
    the voice's default. Deterministic. Raises ModuleNotFoundError where the extra is not installed, and ValueError for
    an unknown voice, a parameter out of range or a text with nothing to say.
    """
    limits = ("rate", rate, SLOWEST, FASTEST), ("pitch", pitch, 0, 100), ("intonation", intonation, 0, 100)
    for name, value, low, high in limits:
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; espeak-ng takes {low} to {high}")
    chunks: list[np.ndarray] = []
    marks: list[tuple[int, str]] = []

    @_SynthCallback
    def receive(samples: Any, count: int, events: Any) -> int:
        if count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != EVENT_LIST_END:
            if events[index].type == EVENT_PHONEME:
                marks.append((events[index].sample, events[index].id.string.decode(errors="replace")))
            index += 1
        return 0

    with _fresh_library() as (library, sampling_rate):
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(
                f"espeak-ng has no voice {voice!r}; a voice is language+variant, such as 'en-us+f2'"
            )
        for parameter, value in ((RATE_WPM, rate), (VOLUME, 60), (PITCH, pitch), (PITCH_RANGE, intonation)):
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_SetSynthCallback(receive)
        encoded = text.encode()
        library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, UTF8, None, None)
    if not any(name.strip("_:") for _, name in marks):
        raise ValueError(f"espeak-ng found nothing to say in {text!r}")
    samples = np.concatenate(chunks)
    return Utterance(to_mono16k(samples, sampling_rate), _phonemes(marks, len(samples), sampling_rate))


def with_silence(utterance: Utterance, lead: float, tail: float) -> Utterance:
    """The utterance with `lead` seconds of silence before it and `tail` seconds after it, both as pauses."""
    rate, samples = utterance.waveform.rate, utterance.waveform.samples
    before, after = round(lead * rate), round(tail * rate)
    shift, end = before / rate, (before + len(samples)) / rate
    moved = [Phoneme(p.name, p.start + shift, p.end + shift, p.stress) for p in utterance.phonemes]
    start = moved[0].start if moved else end
    phonemes = (Phoneme("_", 0.0, start), *moved, Phoneme("_", end, end + after / rate))
    waveform = Waveform(np.pad(samples, (before, after)), rate)
    return Utterance(waveform, tuple(p for p in phonemes if p.end > p.start))


def _phonemes(marks: list[tuple[int, str]], samples: int, rate: int) -> tuple[Phoneme, ...]:
    """(start sample, "'eI") marks -> phonemes; pauses of all lengths become "_", empty spans are dropped."""
    ends = [start for start, _ in marks[1:]] + [samples]
    phonemes = []
    for (start, mark), end in zip(marks, ends, strict=True):
        stress = 2 if "'" in mark else 1 if "," in mark else 0
        name = mark.strip("',=%")
        if end > start:
            phonemes.append(
                Phoneme("_" if name.startswith("_") or not name else name, start / rate, end / rate, stress)
            )
    return tuple(phonemes)


@contextlib.contextmanager
def _fresh_library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """The library in its initial state, and its sampling rate in Hz (22050)."""
    try:
        loader = importlib.import_module("espeakng_loader")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the speech of the synthetic corpus is made by espeak-ng, which is not installed (it is GPL-3, so it is an extra): "
            'pip install "espeakng-loader==0.2.4"'
        ) from error
    library = ctypes.CDLL(loader.get_library_path())
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.espeak_SetSynthCallback.argtypes = [_SynthCallback]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
        ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    data = str(loader.get_data_path()).encode()
    try:
        rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, PHONEME_EVENTS | DONT_EXIT)
        if rate <= 0:
            raise RuntimeError(f"espeak-ng could not read its voices in {loader.get_data_path()}")
        library.srand(1)  # seed of the C library's random numbers, used for breath and echo
        yield library, rate
    finally:
        library.espeak_Terminate()
        # Only unloading resets the library's static variables, and ctypes does not unload by itself.
        getattr(_ctypes, "dlclose" if hasattr(_ctypes, "dlclose") else "FreeLibrary")(library._handle)
