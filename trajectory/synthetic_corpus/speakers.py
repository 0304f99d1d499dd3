"""Who speaks in the synthetic corpus: people who do not exist, each a face, a voice and habits of speech."""

from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

import numpy as np

from stylegan2.protocol import Generator, sample_w

Sex = Literal["m", "f"]

# (seed of sample_w(generator, 1, seed, psi), apparent sex of that face). Every face here was looked at: clearly an
# adult, frontal, eyes open, mouth free. And every one was measured speaking (scripts/check_assets.py, "corpus"): the
# judge's aperture follows the intended one (correlation >= 0.9) and moves (standard deviation >= 0.05). Left out by
# this, because the judge misreads their mouths: 10, 32, 61, 70, 127, 215.
FEMALE = (2, 6, 22, 35, 55, 56, 64, 66, 79, 81, 93, 144, 151, 153, 166, 209, 237)
MALE = (0, 8, 20, 58, 63, 67, 91, 92, 103, 106, 133, 169, 184, 194, 196, 224, 233, 234)
FACE_SEEDS: tuple[tuple[int, Sex], ...] = (
    *((seed, "f") for seed in FEMALE),
    *((seed, "m") for seed in MALE),
)

ACCENTS = (
    "en",
    "en-us",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)
# Variants f2, f3, f5, Alicia and victor are left out: they read memory that nothing has set and so differ from run
# to run; so are the whispers, the robots and the Klatt voices, which do not sound like people.
VARIANTS: dict[Sex, tuple[str, ...]] = {
    "m": (
        "m1",
        "m2",
        "m3",
        "m4",
        "m5",
        "m6",
        "m7",
        "m8",
        "Andy",
        "Michael",
        "Mario",
        "Gene",
        "Diogo",
        "Hugo",
        "Lee",
    ),
    "f": ("f1", "f4", "Annie", "Andrea", "belinda", "linda", "steph", "steph2", "steph3", "anika"),
}


@dataclass(frozen=True)
class Speaker:
    """name: folder of the speaker's clips; face: seed of the face; unseen: never trained on.

    voice: espeak's accent+variant; rate: words per minute; pitch, intonation: 0-100 about the voice's own 50;
    amplitude: how far this mouth moves, 0.8-1; noise_db: hiss of the room beneath full scale.
    """

    name: str
    face: int
    sex: Sex
    unseen: bool
    voice: str
    rate: int
    pitch: int
    intonation: int
    amplitude: float
    noise_db: float


def draw_speakers(seed: int, count: int, unseen: int) -> list[Speaker]:
    """`count` speakers, the last `unseen` of them unseen; women and men in turn while the faces last.

    No two share a face, and none a voice until each variant is taken. Raises ValueError for more than there are faces.
    """
    if count > len(FACE_SEEDS):
        raise ValueError(
            f"corpus.speakers is {count}, but only {len(FACE_SEEDS)} faces were chosen (trajectory/synthetic_corpus/speakers.py)"
        )
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(len(FACE_SEEDS))
    sexes: tuple[Sex, Sex] = ("f", "m") if rng.random() < 0.5 else ("m", "f")
    by_sex = [[FACE_SEEDS[i] for i in order if FACE_SEEDS[i][1] == sex] for sex in sexes]
    faces = [face for face in chain.from_iterable(zip_longest(*by_sex)) if face is not None][:count]
    variants = {sex: [str(name) for name in rng.permutation(names)] for sex, names in VARIANTS.items()}

    speakers = []
    for index, (face, sex) in enumerate(faces):
        variants[sex].append(variant := variants[sex].pop(0))
        speakers.append(
            Speaker(
                name=f"speaker_{index:02d}",
                face=face,
                sex=sex,
                unseen=index >= count - unseen,
                voice=f"{rng.choice(ACCENTS)}+{variant}",
                rate=int(rng.integers(150, 186)),
                pitch=int(rng.integers(40, 61)),
                intonation=int(rng.integers(40, 71)),
                amplitude=round(float(rng.uniform(0.8, 1.0)), 3),
                noise_db=round(float(rng.uniform(-72, -58)), 1),
            )
        )
    return speakers


def face_latent(generator: Generator, speaker: Speaker, psi: float) -> np.ndarray:
    """The face at rest: w (L, D) float32, truncated by psi."""
    return sample_w(generator, 1, speaker.face, psi)[0].float().cpu().numpy()
