"""Mouth shapes of phonemes: closures, opening, rounding, rest; blinks and head sway."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.timing import frames_of_samples
from audio.waveform import Waveform
from trajectory.synthetic_corpus.coarticulation import (
    AXES,
    CONSONANTS,
    SEALS,
    VISEMES,
    VOWELS,
    articulate,
    blinks,
    closures,
    shapes_of,
    sway,
    viseme_weights,
)
from trajectory.synthetic_corpus.espeak import Phoneme, Utterance

OPEN, WIDE, ROUND, PRESS, BLINK, YAW, PITCH = range(7)


def utterance(*segments):
    """(name, seconds) pairs -> an utterance of even loudness."""
    ends = np.cumsum([seconds for _, seconds in segments])
    phonemes = tuple(
        Phoneme(name, float(end - seconds), float(end))
        for (name, seconds), end in zip(segments, ends, strict=True)
    )
    samples = np.sin(np.arange(round(ends[-1] * 16000))).astype(np.float32) * 0.3
    return Utterance(Waveform(samples), phonemes)


def move(*segments):
    spoken = utterance(*segments)
    return articulate(spoken, frames_of_samples(len(spoken.waveform.samples)))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([*VOWELS, *CONSONANTS, "aI", "oU", "dZ", "_", ";"]), st.floats(0.02, 0.4)),
        min_size=1,
        max_size=12,
    )
)
def test_weights_lie_in_the_unit_interval_and_every_closure_seals(segments):
    spoken = utterance(*segments)
    frames = (
        frames_of_samples(len(spoken.waveform.samples)) + 2
    )  # a closure at the very end may need the next frame
    weights = articulate(spoken, frames)
    assert weights.shape == (frames, len(AXES)) and weights.dtype == np.float32
    assert (weights >= 0).all() and (weights <= 1).all() and not weights[:, BLINK:].any()
    times = (np.arange(frames) + 0.5) / 25
    for closure in closures(spoken.phonemes):
        if closure.end < 0.03 or closure.depth < 1:
            continue  # before the first frame's centre, or not a closure of the lips
        closed = (times >= closure.start) & (times <= closure.end)
        assert closed.any() and (weights[closed, OPEN] == 0).all()
        assert (weights[closed, PRESS] >= closure.press - 1e-6).all()


@pytest.mark.parametrize("name", [name for name, (_, depth) in SEALS.items() if depth == 1])
@pytest.mark.parametrize("length", [0.03, 0.05, 0.08])
@pytest.mark.parametrize("offset", [0.0, 0.01, 0.02, 0.03])
def test_lips_close_between_open_vowels_and_open_again(name, length, offset):
    weights = move(("_", 0.2 + offset), ("A:", 0.2), (name, length), ("A:", 0.2), ("_", 0.2))
    opening = weights[:, OPEN]
    shut = 5 + np.flatnonzero(opening[5:-5] == 0)
    assert len(shut) >= 1
    assert opening[: shut[0]].max() > 0.6 and opening[shut[-1] :].max() > 0.6


def test_low_vowels_open_wider_and_lips_are_rounded_or_spread():
    def middle(vowel):
        return move(("_", 0.2), ("t", 0.06), (vowel, 0.25), ("t", 0.06), ("_", 0.2))[9]

    heights = [middle(vowel)[OPEN] for vowel in ("i:", "E", "a", "A:")]
    assert all(low < high for low, high in pairwise(heights)) and heights[-1] > 3 * heights[0]
    assert middle("u:")[ROUND] > 0.6 > 0.1 > middle("i:")[ROUND]
    assert middle("i:")[WIDE] > 0.6 > 0.1 > middle("u:")[WIDE]


def test_labiodentals_nearly_close():
    weights = move(("_", 0.2), ("A:", 0.2), ("f", 0.12), ("A:", 0.2), ("_", 0.2))
    centre = weights[11]
    assert 0 < centre[OPEN] < 0.3 and centre[PRESS] > 0.3


def test_rounding_begins_before_its_vowel():
    rounded = move(("_", 0.2), ("t", 0.08), ("u:", 0.2), ("_", 0.2))
    spread = move(("_", 0.2), ("t", 0.08), ("i:", 0.2), ("_", 0.2))
    assert rounded[6, ROUND] > spread[6, ROUND] + 0.1  # frame 6 is within the t


def test_fast_speech_undershoots():
    def swing(scale):
        opening = move(*[(name, 0.1 * scale) for name in "tAtAtAtAt"])[:, OPEN]
        return np.ptp(opening[3:-3])

    assert swing(2.0) > swing(1.0) > swing(0.5)


def test_pauses_give_the_rest_shape():
    assert move(("_", 0.5)).max() < 1e-4
    weights = move(("_", 0.3), ("a", 0.2), ("_", 0.4))
    assert weights[0].max() < 1e-3 and weights[-1].max() < 1e-3


def test_stress_opens_wider():
    spoken = utterance(("_", 0.2), ("t", 0.1), ("a", 0.2), ("t", 0.1), ("_", 0.2))
    stressed = tuple(Phoneme(p.name, p.start, p.end, 2 if p.name == "a" else 0) for p in spoken.phonemes)
    assert (
        articulate(Utterance(spoken.waveform, stressed), 20)[:, OPEN].max()
        > articulate(spoken, 20)[:, OPEN].max()
    )


def test_marks_without_a_sound_have_no_shape():
    assert shapes_of(";") is None
    assert len(shapes_of("aI2") or ()) == 2 and len(shapes_of("t#") or ()) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_blinks_come_every_two_to_six_seconds(seed):
    lids = blinks(25 * 60, np.random.default_rng(seed))
    assert lids.min() == 0 and lids.max() == 1
    shut = np.flatnonzero(lids == 1)
    gaps = np.diff(shut) / 25
    assert shut[0] / 25 <= 4.1 and (gaps >= 1.9).all() and (gaps <= 6.1).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 400))
def test_heads_sway_slowly_and_within_bounds(seed, frames):
    head = sway(frames, np.random.default_rng(seed))
    assert head.shape == (frames, 2) and head.dtype == np.float32 and np.abs(head).max() <= 1
    assert frames < 2 or np.abs(np.diff(head, axis=0)).max() < 2 * np.pi * 0.6 / 25 + 1e-6
    assert frames < 250 or (np.ptp(head, axis=0) > 0.2).all()


def test_fifteen_visemes_differ_and_the_labials_are_shut():
    shapes = {name: viseme_weights(name) for name in VISEMES}
    assert len(shapes) == 15 == len({tuple(shape) for shape in shapes.values()})
    assert not shapes["sil"].any() and shapes["PP"][OPEN] == 0 and shapes["PP"][PRESS] > 0.8
    assert shapes["aa"][OPEN] == max(shape[OPEN] for shape in shapes.values())
    assert shapes["ou"][ROUND] > shapes["oh"][ROUND] > shapes["ih"][ROUND] == 0
    with pytest.raises(ValueError, match="there is no viseme 'XX'"):
        viseme_weights("XX")


def test_every_phoneme_that_the_corpus_says_is_known():
    pytest.importorskip("espeakng_loader")
    from trajectory.synthetic_corpus.espeak import synthesise
    from trajectory.synthetic_corpus.sentences import FREE_SENTENCES, LETTERS
    from trajectory.synthetic_corpus.speakers import ACCENTS

    names = set()
    for index, accent in enumerate(ACCENTS):
        texts = [
            " ".join(FREE_SENTENCES[index::4]),
            ". ".join(LETTERS),
            "zero one two three four five six seven",
        ]
        for text in texts:
            names |= {p.name for p in synthesise(text, f"{accent}+m3", rate=300).phonemes}
    assert len(names) > 50
    assert {name for name in names if shapes_of(name) is None} <= {"_", ";"}
