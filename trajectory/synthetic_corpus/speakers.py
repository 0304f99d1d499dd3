"""The synthetic speakers of the corpus, each with a face, a voice and speaking parameters."""

from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

import numpy as np

from stylegan2.protocol import Generator, sample_w

Sex = Literal["m", "f"]

# Seeds of sample_w(generator, 1, seed, psi), by the apparent sex of the face. Every face was inspected by eye: clearly
# an adult, frontal, eyes open, mouth not covered. Every face was also measured while speaking (scripts/check_assets.py,
# "corpus"): the aperture that dlib reads follows the intended one (correlation >= 0.9) and moves (standard deviation >=
# 0.05). dlib misreads the mouths of 10, 32, 61, 70, 127 and 215, so they are left out.
FEMALE = (2, 6, 22, 35, 55, 56, 64, 66, 79, 81, 93, 144, 151, 153, 166, 209, 237)
MALE = (0, 8, 20, 58, 63, 67, 91, 92, 103, 106, 133, 169, 184, 194, 196, 224, 233, 234)
FACE_SEEDS: tuple[tuple[int, Sex], ...] = (
    *((seed, "f") for seed in FEMALE),
    *((seed, "m") for seed in MALE),
)

# Voices of espeak.
ACCENTS = (
    "en", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc",
)  # fmt: skip
# espeak's variants f2, f3, f5, Alicia and victor are left out because they read uninitialised memory, so that their sound
# differs from run to run; whispers, robots and Klatt voices because they do not sound like people.
VARIANTS: dict[Sex, tuple[str, ...]] = {
    "m": (
        "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Andy", "Michael", "Mario", "Gene", "Diogo", "Hugo", "Lee",
    ),
    "f": ("f1", "f4", "Annie", "Andrea", "belinda", "linda", "steph", "steph2", "steph3", "anika"),
}  # fmt: skip


@dataclass(frozen=True)
class Speaker:
    """One synthetic speaker."""

    name: str  # folder of the speaker's clips
    face: int  # seed of the face
    sex: Sex
    unseen: bool  # never trained on
    voice: str  # espeak's accent+variant
    rate: int  # words per minute
    pitch: int  # 0-100; 50 is the voice's default
    intonation: int  # range of the pitch, 0-100; 50 is the voice's default
    amplitude: float  # amplitude of mouth motion, 0.8-1
    noise_db: float  # background noise relative to full scale


def draw_speakers(seed: int, count: int, unseen: int) -> list[Speaker]:
    """`count` <= len(FACE_SEEDS) speakers, the last `unseen` of them unseen; women and men alternate while faces last.

    No two share a face, and no two a voice variant until all variants are taken.
    """
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
