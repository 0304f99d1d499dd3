"""The sentences of the synthetic corpus: sentences of the GRID corpus' grammar, and free ones of varied rhythm."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
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

# About two seconds each. Every sentence has lip closures (p b m), most have rounded and spread vowels, and their rhythms
# differ: lists, questions, short and long words, pauses.
FREE_SENTENCES = (
    "My mum bought a pot of purple paint.",
    "Bob and Pam moved the big blue boat.",
    "Please pick up the broom by the pump.",
    "We saw two moose beside the bamboo.",
    "Poppy bakes apple pie every May.",
    "Maybe the bus will be empty by noon.",
    "Who moved my umbrella? Was it you?",
    "Stop! The paper lamp is burning.",
    "A warm breeze blew over the beach.",
    "People bring maps; pilots bring compasses.",
    "Both boys jumped into the muddy pool.",
    "Keep the cheese and the beans apart.",
    "Some birds sleep while they float.",
    "Do you believe in magic, Bruno?",
    "The baker swept up a mound of crumbs.",
    "Five brave women climbed the mountain.",
    "Peel the potato, then boil it slowly.",
    "Mice, moths and bees, but no wolves.",
    "I hope my beard grows back by spring.",
    "Put the bottle back, my boy.",
    "Ruby opened a shop above the market.",
    "Too much pepper makes me sneeze.",
    "The moon rose; the whole bay grew calm.",
    "Why would a puma wear a bow?",
    "Beep, beep, beep: somebody is phoning me.",
    "Emma plays the oboe and the piano.",
    "He whispered, but they all complained.",
    "Pull the rope as hard as possible.",
    "Maps of Peru are cheaper in bulk.",
    "This tomb belongs to a famous poet.",
    "Blue smoke poured from the chimney.",
    "Amy, may I borrow your pen?",
    "The umpire blew a whistle and smiled.",
    "We keep sheep, bees and a goose.",
    "Mix both spoons of butter with the oats.",
    "Nobody in the room spoke Portuguese.",
    "Perhaps the museum opens tomorrow.",
    "A tiny bell rang above the doorway.",
    "Go home, wash up, and go to bed.",
    "The plumber found a pipe full of moss.",
    "Her map was upside down all morning.",
    "Summer brings us plums and wasps.",
    "Whose boots are by the swimming pool?",
    "Paul has seen a blue whale up close.",
    "Move over, please: this is my place.",
    "The puppy chewed my brother's shoe.",
    "Balloons popped above the wooden roof.",
    "Bees hum; pumps thump; babies babble.",
    "I am free from noon on Monday.",
    "What a beautiful bowl of mushrooms!",
    "Combine two cups of rice with one of milk.",
    "The boss may approve your proposal.",
    "Few people swim here in September.",
    "My robot paints; yours only moves boxes.",
    "Be brave, be quick, and be home by two.",
    "Tom rubbed his eyes, then woke up.",
    "You may keep the map, but not the book.",
    "Soup, bread, more soup, and a peach.",
    "The bishop bowed before the choir.",
    "Bright ribbons were wrapped round the beam.",
    "Could we meet by the opera at three?",
    "Steam was pouring from the broken pipe.",
    "Mum teaches math; Papa repairs pianos.",
    "The wind blew the maple leaves to the pond.",
    "Open the window; I smell something burning.",
    "She wore a purple robe and big boots.",
    "Remember the password: bamboo, moon, apple.",
    "Eve proved me wrong about the tomatoes.",
    "Rub a bit of balm upon the bruise.",
    "Most bridges move a bit in a storm.",
    "How many bulbs do we need? Maybe ten.",
    "The group agreed to wait for Pamela.",
)


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
    """Draws sentences such that no text of one split is a text of another.

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
