"""Computes motion along articulatory axes from phonemes, with coarticulation; also blinks and head sway.

Weights (T video frames, A axes) lie in [0, 1], the head's in [-1, 1]: 0 is the speaker's rest (lips together, neutral),
1 the axis' full amplitude. The viseme basis (encoders/bases/viseme_basis.py) turns them into displacements of W+.
"""

from dataclasses import dataclass

import numpy as np

from audio.timing import FPS
from encoders.bases.viseme_basis import AXES
from trajectory.synthetic_corpus.espeak import Phoneme, Utterance

# (pressure of the lips, share of the opening that is closed): all of it for p b m, most of it for f v (teeth on lower
# lip).
SEALS = {"p": (0.9, 1.0), "b": (0.85, 1.0), "m": (0.7, 1.0), "f": (0.35, 0.7), "v": (0.3, 0.7)}


@dataclass(frozen=True)
class Target:
    """The mouth shape of a phoneme, and its dominance over its neighbours' shapes."""

    open: float
    wide: float = 0.0
    round: float = 0.0
    jaw: float = 1.0  # dominance (alpha of `articulate`) of `open`; 0: the neighbours' shapes alone
    lips: float = 1.0  # dominance of `wide` and `round`


# Vowels: low vowels are more open; front vowels are wide, rounded back vowels round.
VOWELS = {
    "i": Target(0.22, wide=0.85),
    "I": Target(0.34, wide=0.55, lips=0.7),
    "e": Target(0.42, wide=0.65),
    "E": Target(0.56, wide=0.45),
    "a": Target(0.85, wide=0.30),
    "A": Target(0.95, lips=0.6),
    "0": Target(0.80, round=0.30),
    "O": Target(0.62, round=0.70),
    "o": Target(0.50, round=0.75),
    "U": Target(0.32, round=0.55),
    "u": Target(0.22, round=0.90),
    "V": Target(0.70, wide=0.10, lips=0.6),
    "3": Target(0.45, round=0.20),
    "@": Target(0.40, jaw=0.6, lips=0.3),
}
# Consonants: labials dominate the lips, sibilants the jaw; the others mostly follow the vowels around them.
CONSONANTS = {
    "p": Target(0.0, jaw=1.2, lips=0.3),
    "b": Target(0.0, jaw=1.2, lips=0.3),
    "m": Target(0.0, jaw=1.2, lips=0.3),
    "f": Target(0.10, wide=0.15, jaw=1.2, lips=0.6),
    "v": Target(0.12, wide=0.15, jaw=1.2, lips=0.6),
    "w": Target(0.15, round=1.0, jaw=0.9, lips=1.5),
    "r": Target(0.28, round=0.45, jaw=0.5, lips=0.7),
    "S": Target(0.22, round=0.60, jaw=0.9, lips=0.9),
    "s": Target(0.14, wide=0.50, jaw=0.9, lips=0.6),
    "T": Target(0.24, wide=0.20, jaw=0.6, lips=0.3),
    "t": Target(0.22, wide=0.15, jaw=0.5, lips=0.2),
    "l": Target(0.34, wide=0.10, jaw=0.4, lips=0.2),
    "j": Target(0.22, wide=0.60, jaw=0.6, lips=0.5),
    "k": Target(0.30, jaw=0.35, lips=0.1),
    "h": Target(0.35, jaw=0.1, lips=0.05),
}
REST = Target(0.0, jaw=1.0, lips=0.8)
SHORT_PAUSE = Target(0.12, jaw=0.5, lips=0.3)  # in pauses between words the mouth does not close
# The 15 visemes of the Oculus convention, each with a phoneme of that shape.
VISEMES = {
    "sil": "_", "PP": "p", "FF": "f", "TH": "T", "DD": "t", "kk": "k", "CH": "S", "SS": "s", "nn": "l", "RR": "r",
    "aa": "A", "E": "E", "ih": "i", "oh": "o", "ou": "u",
}  # fmt: skip
ALIASES = {
    "u:": "u", "i:": "i", "A:": "A", "A@": "A", "O:": "O", "O@": "O", "o@": "O", "O2": "0", "3:": "3", "VR": "V",
    "IR": "I", "aa": "a", "a:": "a", "e:": "e", "E:": "E", "o:": "o", "@L": "@",
    "z": "s", "Z": "S", "tS": "S", "dZ": "S", "D": "T", "d": "t", "n": "t", "g": "k", "N": "k", "x": "k", "?": "h",
}  # fmt: skip
GLIDES = {
    "eI": "Ei", "aI": "aI", "OI": "OI", "aU": "au", "oU": "ou", "@U": "@u", "i@": "I@", "e@": "E@", "U@": "U@",
    "aI@": "aI@", "aU@": "au@",
}  # fmt: skip
STRESS_GAIN = (0.9, 1.0, 1.15)  # none, secondary, primary
SHORT_PAUSE_S, CLOSURE_S, RAMP_S = 0.12, 0.045, 0.05


def shapes_of(name: str) -> tuple[Target, ...] | None:
    """The targets of an espeak mnemonic, several for a diphthong. None for a mark without a sound (";") and for unknown
    mnemonics: their frames then get the neighbours' shapes."""
    table = VOWELS | CONSONANTS
    for key in (name, name.rstrip("0123456789#[]-;^")):
        if key in GLIDES:
            return tuple(table[letter] for letter in GLIDES[key])
        key = ALIASES.get(key, key)
        if key in table:
            return (table[key],)
    return None


def viseme_weights(viseme: str) -> np.ndarray:
    """Weights (A,) of one viseme without neighbours; ValueError for a name that is not in VISEMES."""
    if viseme not in VISEMES:
        raise ValueError(f"there is no viseme {viseme!r}; there are {', '.join(VISEMES)}")
    name, weights_A = VISEMES[viseme], np.zeros(len(AXES), np.float32)
    if name in SEALS:
        weights_A[AXES.index("press")] = SEALS[name][0]
    target = REST if name == "_" else (VOWELS | CONSONANTS)[name]
    weights_A[:3] = target.open, target.wide, target.round
    return weights_A


def articulate(utterance: Utterance, num_frames: int) -> np.ndarray:
    """Weights (T, A) of an utterance at 25 fps, at the frames' centres; the columns of eyelids and head are zero.

    Dominance blending (Cohen and Massaro 1993) with a flat-topped Gaussian dominance as wide as its phoneme is long, so
    that in fast speech phonemes overlap and targets are not reached:

        w_a(t) = sum_s D_sa(t) T_sa / sum_s D_sa(t),   D_sa(t) = alpha_sa exp(-(max(0, |t - c_s| - d_s / 5) / theta_s)^2)

    Then the closures are applied: in one of p, b or m, `open` is exactly 0 for at least one frame, and `press` rises.
    """
    times_T = (np.arange(num_frames) + 0.5) / FPS
    numerator = np.zeros((num_frames, 3))
    denominator = np.full((num_frames, 3), 1e-6)  # so that the mouth rests far from any phoneme
    loudness = _loudness(utterance)
    for phoneme, gain in zip(utterance.phonemes, loudness, strict=True):
        targets = _targets(phoneme)
        if not targets:
            continue
        length = (phoneme.end - phoneme.start) / len(targets)
        for index, target in enumerate(targets):
            distance_T = np.abs(times_T - (phoneme.start + (index + 0.5) * length))
            theta = 0.015 + 0.45 * length
            dominance_T = np.exp(-((np.maximum(0, distance_T - length / 5) / theta) ** 2))
            weight = np.array([target.jaw, target.lips, target.lips])
            shape = np.array([target.open * gain, target.wide, target.round])
            numerator += dominance_T[:, None] * weight * shape
            denominator += dominance_T[:, None] * weight
    weights_TA = np.zeros((num_frames, len(AXES)))
    weights_TA[:, :3] = numerator / denominator
    for closure in closures(utterance.phonemes):
        # A raised cosine around the closed interval, which contains at least one frame's centre.
        outside_T = np.maximum(0, np.maximum(closure.start - times_T, times_T - closure.end))
        seal_T = np.where(outside_T < RAMP_S, 0.5 + 0.5 * np.cos(np.pi * outside_T / RAMP_S), 0.0)
        weights_TA[:, 0] *= 1 - closure.depth * seal_T
        weights_TA[:, 3] = np.maximum(weights_TA[:, 3], closure.press * seal_T)
    return np.clip(weights_TA, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Closure:
    """start, end: seconds, at least a video frame apart; press: in [0, 1]; depth: share of the opening that is closed."""

    start: float
    end: float
    press: float
    depth: float


def closures(phonemes: tuple[Phoneme, ...]) -> list[Closure]:
    """Where the lips meet (p b m), or teeth and lip (f v)."""
    result = []
    for previous, phoneme in zip((None, *phonemes), phonemes, strict=False):
        if phoneme.name not in SEALS:
            continue
        start, end = phoneme.start, phoneme.start + 0.8 * (phoneme.end - phoneme.start)
        if phoneme.name == "p":  # espeak marks p at its burst; its closure is the silence before
            room = (previous.end - previous.start) / 2 if previous else 0.0
            start, end = phoneme.start - min(CLOSURE_S, room), phoneme.start + 0.005
        shortfall = max(0.0, 1.02 / FPS - (end - start)) / 2
        result.append(Closure(start - shortfall, end + shortfall, *SEALS[phoneme.name]))
    return result


def blinks(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Closure of the eyelids (T,) in [0, 1]: they close within 80 ms, stay closed for one frame and open within 160 ms,
    every 2 to 6 s, for the first time after 0.3 to 4 s.
    """
    times_T = (np.arange(num_frames) + 0.5) / FPS
    lids_T = np.zeros(num_frames, np.float32)
    shut = rng.uniform(0.3, 4.0)
    while shut < num_frames / FPS + 0.2:
        after_T = times_T - (np.floor(shut * FPS) + 0.5) / FPS
        rise_T = np.where(after_T < 0, 1 + after_T / 0.08, 1 - after_T / 0.16)
        lids_T = np.maximum(lids_T, np.clip(rise_T, 0, 1).astype(np.float32))
        shut += rng.uniform(2.0, 6.0)
    return lids_T


def sway(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Yaw and pitch of the head (T, 2) in [-1, 1]: each the weighted mean of three sines of 0.1 to 0.6 Hz."""
    times_T = np.arange(num_frames) / FPS
    waves = rng.uniform((0.1, 0, 0.5), (0.6, 2 * np.pi, 1.0), (2, 3, 3))
    frequency, phase, height = (waves[..., i, None] for i in range(3))
    wave = (height * np.sin(2 * np.pi * frequency * times_T + phase)).sum(1) / height.sum(1)
    return wave.T.astype(np.float32)


def _targets(phoneme: Phoneme) -> tuple[Target, ...] | None:
    if phoneme.name == "_":
        return (SHORT_PAUSE,) if phoneme.end - phoneme.start < SHORT_PAUSE_S else (REST,)
    return shapes_of(phoneme.name)


def _loudness(utterance: Utterance) -> list[float]:
    """Factor on each phoneme's opening: larger if it is stressed, and if it is louder than the utterance's median."""
    samples, rate = utterance.waveform.samples, utterance.waveform.rate
    spans = [
        samples[round(p.start * rate) : max(round(p.end * rate), round(p.start * rate) + 1)]
        for p in utterance.phonemes
    ]
    level = np.array(
        [20 * np.log10(np.sqrt(np.mean(np.square(s))) + 1e-5) if len(s) else -100.0 for s in spans]
    )
    median = np.median(level[level > level.max() - 25]) if len(level) else 0.0
    return [
        STRESS_GAIN[phoneme.stress] * float(np.clip(1 + 0.02 * (decibel - median), 0.8, 1.15))
        for phoneme, decibel in zip(utterance.phonemes, level, strict=True)
    ]
