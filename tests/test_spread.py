"""Which test clips a report scores."""

from collections import Counter

from encoders.clips import ClipEntry
from scripts.evaluate import spread


def _entries(speakers: int, sentences: list[str]) -> list[ClipEntry]:
    return [
        ClipEntry(f"{who}/{text}", f"{who}/{text}.safetensors", f"s{who}", text, "seen", 50)
        for who in range(speakers)
        for text in sentences
    ]


def test_few_clips_are_of_all_speakers_and_of_both_kinds_of_sentence():
    chosen = spread(_entries(9, ["free_01", "bbaf2n"]), 9)
    assert len({entry.speaker for entry in chosen}) == 9
    assert Counter(entry.sentence for entry in chosen) == {"free_01": 5, "bbaf2n": 4}


def test_what_fits_is_kept_whole_and_in_order():
    entries = _entries(2, ["a", "b", "c"])
    assert spread(entries, 6) == entries
    assert [entry.name for entry in spread(entries, 3)] == ["0/a", "0/b", "1/b"]
