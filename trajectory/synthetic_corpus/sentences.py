"""The sentences of the synthetic corpus: sentences of the GRID corpus' grammar, and free ones of varied rhythm."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["grid", "free"]
Split = Literal["train", "val", "seen", "unseen"]

COMMANDS = ("bin", "lay", "place", "set")
COLOURS = ("blue", "green", "red", "white")
PREPOSITIONS = ("at", "by", "in", "with")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVXYZ"  # without W, the only letter of several syllables
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ADVERBS = ("again", "now", "please", "soon")

# One sentence a line, about two seconds each. Every one has lip closures (p b m), most have rounded and spread vowels,
# and their rhythms differ: lists, questions, short and long words, pauses.
FREE_SENTENCES = tuple(Path(__file__).with_name("free_sentences.txt").read_text("utf-8").splitlines())


@dataclass(frozen=True)
class Sentence:
    """name: unique for the text ("bbaf2n" as GRID names its files, "free_07"); text: as it is written."""

    name: str
    text: str
    kind: Kind

    @property
    def spoken(self) -> str:
        """The text for the synthesiser, which would read the letter "A" as the article."""
        return self.text.replace(" A ", " eigh ") if self.kind == "grid" else self.text


def grid_sentence(rng: np.random.Generator) -> Sentence:
    """command + colour + preposition + letter + digit + adverb, each drawn uniformly."""
    words = [
        str(rng.choice(words)) for words in (COMMANDS, COLOURS, PREPOSITIONS, tuple(LETTERS), DIGITS, ADVERBS)
    ]
    digit = "z" if words[4] == "zero" else str(DIGITS.index(words[4]))
    name = "".join((*(word[0].lower() for word in words[:4]), digit, words[5][0]))
    return Sentence(name, " ".join(words), "grid")


def splits_of(sentences: int, unseen: bool) -> list[Split]:
    """The split of each of a speaker's sentences: 6 -> 4 train, 1 val, 1 seen; 20 -> 16, 2, 2; unseen: all unseen."""
    if unseen:
        return ["unseen"] * sentences
    held = max(1, sentences // 10)
    counts: dict[Split, int] = {"train": sentences - 2 * held, "val": held, "seen": held}
    return [split for split, count in counts.items() for _ in range(count)]


class SentenceSource:
    """Draws sentences such that no text occurs in two splits.

    GRID sentences are drawn from 64,000 without repetition. The free ones are divided among train, val and test by the
    seed (60, 15, 25 %) and taken in turn within a split, so a text is said twice only after all others of its split. The
    two test splits (seen and unseen speakers) share their sentences, so that they can be compared.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._used: set[str] = set()
        order = self._rng.permutation(len(FREE_SENTENCES))
        train, val = round(0.6 * len(order)), round(0.75 * len(order))
        pools = {"train": order[:train], "val": order[train:val], "test": order[val:]}
        self._free: dict[str, Iterator[int]] = {name: cycle(pool.tolist()) for name, pool in pools.items()}

    def draw(self, split: Split, kind: Kind) -> Sentence:
        if kind == "free":
            index = next(self._free["test" if split in ("seen", "unseen") else split])
            return Sentence(f"free_{index:02d}", FREE_SENTENCES[index], "free")
        sentence = grid_sentence(self._rng)
        while sentence.name in self._used:
            sentence = grid_sentence(self._rng)
        self._used.add(sentence.name)
        return sentence
