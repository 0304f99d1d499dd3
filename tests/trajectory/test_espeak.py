"""Phoneme events are in time with the sound, and the same request gives the same speech whatever was said before."""

import sys

import numpy as np
import pytest

pytest.importorskip("espeakng_loader")

import itertools

from trajectory.synthetic_corpus.espeak import synthesise, with_silence
from trajectory.synthetic_corpus.speakers import ACCENTS, VARIANTS


def level(utterance, start, end):
    """dB of full scale between two times in seconds."""
    samples, rate = utterance.waveform.samples, utterance.waveform.rate
    part = samples[round(start * rate) : round(end * rate)]
    return 20 * np.log10(np.sqrt(np.mean(np.square(part))) + 1e-5)


def hissing(utterance, phoneme):
    """Share of a phoneme's energy above 3 kHz, in its middle."""
    samples, rate = utterance.waveform.samples, utterance.waveform.rate
    centre, half = (phoneme.start + phoneme.end) / 2, 0.015
    spectrum = (
        np.abs(np.fft.rfft(samples[round((centre - half) * rate) : round((centre + half) * rate)])) ** 2
    )
    return spectrum[np.fft.rfftfreq(round(2 * half * rate), 1 / rate) > 3000].sum() / spectrum.sum()


def test_phonemes_cover_the_sound_without_gaps():
    utterance = synthesise("Bob put a map of Peru by the blue boat.", "en+m3")
    phonemes = utterance.phonemes
    assert [p.name for p in phonemes[:4]] == ["b", "0", "b", "p"]
    assert phonemes[1].stress == 2 and phonemes[0].stress == 0
    for before, after in itertools.pairwise(phonemes):
        assert before.start < before.end == after.start
    assert phonemes[-1].end == pytest.approx(utterance.waveform.seconds, abs=1e-3)
    assert np.abs(utterance.waveform.samples).max() < 0.99


@pytest.mark.parametrize("voice", ["en+m3", "en-us+f4", "en-gb-scotland+m7", "en-gb-x-rp+Annie"])
def test_plosives_are_silent_before_their_event_and_loud_after(voice):
    utterance = synthesise("Papa kept a pocket of paper, a cap, a pipe, a teapot.", voice, rate=150)
    phonemes = utterance.phonemes
    rises = [
        level(utterance, after.start + 0.02, after.start + 0.06)
        - level(utterance, plosive.start - 0.03, plosive.start)
        for plosive, after in itertools.pairwise(phonemes)
        if plosive.name in ("p", "t", "k") and after.name != "_" and after.name not in ("p", "t", "k")
    ]
    assert len(rises) >= 8 and np.median(rises) > 20 and min(rises) > 0


@pytest.mark.parametrize("voice", ["en+m3", "en-us+f4"])
def test_sibilants_hiss_where_the_events_say(voice):
    utterance = synthesise("See a sea of sass, a saw, a sofa, a sigh.", voice, rate=150)
    hiss = [hissing(utterance, p) for p in utterance.phonemes if p.name == "s"]
    rest = [
        hissing(utterance, p)
        for p in utterance.phonemes
        if p.name in ("i:", "a", "O:", "oU", "aI", "a#", "@")
    ]
    assert len(hiss) >= 6 and min(hiss) > 0.5 and np.median(rest) < 0.1


def test_the_same_request_gives_the_same_samples_in_any_order():
    requests = [
        ("Please go home.", f"{ACCENTS[i % 8]}+{name}")
        for i, name in enumerate(VARIANTS["f"] + VARIANTS["m"][:4])
    ]
    first = [synthesise(*request) for request in requests]
    again = [synthesise(*request) for request in reversed(requests)][::-1]
    for a, b in zip(first, again, strict=True):
        assert a.phonemes == b.phonemes
        np.testing.assert_array_equal(a.waveform.samples, b.waveform.samples)


def test_voice_rate_and_pitch_matter():
    base = synthesise("One blue boat.")
    assert synthesise("One blue boat.", rate=220).waveform.seconds < 0.9 * base.waveform.seconds
    for other in (synthesise("One blue boat.", pitch=80), synthesise("One blue boat.", voice="en+f4")):
        count = min(len(base.waveform.samples), len(other.waveform.samples))
        assert not np.array_equal(base.waveform.samples[:count], other.waveform.samples[:count])


def test_women_speak_higher_than_men():
    def fundamental(voice):
        vowel = synthesise("No.", voice).waveform.samples[1600:4160]
        spectrum = np.abs(np.fft.rfft(vowel * np.hanning(len(vowel)), 8192)) ** 2
        periods = np.fft.irfft(spectrum)[: 16000 // 60]  # autocorrelation
        return 16000 / (50 + np.argmax(periods[50:]))

    men = [fundamental(f"en+{name}") for name in VARIANTS["m"]]
    women = [fundamental(f"en+{name}") for name in VARIANTS["f"]]
    assert np.median(men) < 130 < 150 < np.median(women)


def test_silence_around_an_utterance():
    plain = synthesise("A bee.")
    padded = with_silence(plain, 0.5, 0.25)
    assert padded.waveform.seconds == pytest.approx(plain.waveform.seconds + 0.75)
    assert not padded.waveform.samples[:8000].any()
    assert padded.phonemes[0].name == "_" and padded.phonemes[0].end >= 0.5
    assert padded.phonemes[1].start == pytest.approx(plain.phonemes[0].start + 0.5)
    assert padded.phonemes[-1].end == pytest.approx(padded.waveform.seconds)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [({"voice": "nobody"}, "no voice"), ({"rate": 20}, "rate"), ({"pitch": 101}, "pitch"), ({"text": ""}, "nothing to say")],
)  # fmt: skip
def test_impossible_requests_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        synthesise(**{"text": "hello", **arguments})


def test_a_missing_extra_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        synthesise("hello")
