"""The embedded corpus: synthetic speakers say sentences, and ordinary mp4 files with sound come out.

    text -> espeak-ng: sound and phonemes -> visemes (T, A) -> w_t = w_speaker + sum_a weight_ta direction_a -> frames

T video frames, A articulatory axes (visemes.AXES), L rows of W+, D = 512. The truth beside the videos is for tests:
the pipeline prepares and inverts these videos as it would real footage.
"""

import json
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import nn

from audio.timing import frames_of_samples, samples_of_frames
from audio.waveform import Waveform
from encoders.content_hash import content_hash
from encoders.footage.video_writer import write_video
from stylegan2.protocol import Generator
from stylegan2.render import render
from stylegan2.weights import atomic_path
from trajectory.synthetic_corpus.coarticulation import AXES, articulate, blinks, sway
from trajectory.synthetic_corpus.espeak import FASTEST, SLOWEST, Phoneme, synthesise, with_silence
from trajectory.synthetic_corpus.sentences import Kind, Sentence, SentenceSource, Split, splits_of
from trajectory.synthetic_corpus.speakers import FACE_SEEDS, Speaker, draw_speakers, face_latent

HEAD = (AXES.index("yaw"), AXES.index("pitch"))
MOUTH = (0, 1, 2)  # open, wide, round: what a speaker's amplitude scales; lips close fully whoever speaks


@dataclass
class CorpusConfig:
    """seed: draws faces, voices, sentences and blinks; it changes everything.

    speakers: all of them, the last `unseen_speakers` held out; sentences: for each speaker (6: 4 train, 1 validation,
    1 test); grid_share: of GRID's grammar, the rest free sentences; psi: truncation of the faces. sway: how far heads turn and nod, 1 is about
    6 and 3 degrees.
    """

    seed: int = 0
    speakers: int = 8
    unseen_speakers: int = 2
    sentences: int = 6
    grid_share: float = 0.5
    psi: float = 0.7
    sway: float = 0.5

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"corpus.seed is {self.seed}; it must be 0 or more")
        if not 1 <= self.speakers <= len(FACE_SEEDS):
            raise ValueError(
                f"corpus.speakers is {self.speakers}; it must lie in 1 .. {len(FACE_SEEDS)}, the faces chosen"
            )
        if not 0 <= self.unseen_speakers < self.speakers:
            raise ValueError(
                f"corpus.unseen_speakers is {self.unseen_speakers}; it must lie in 0 .. speakers - 1"
            )
        if not 3 <= self.sentences <= 1000:
            raise ValueError(
                f"corpus.sentences is {self.sentences}; it must lie in 3 .. 1000, one for each split at least"
            )
        if not 0 <= self.grid_share <= 1 or not 0 <= self.psi <= 1:
            raise ValueError("corpus.grid_share and corpus.psi must lie in [0, 1]")
        if not 0 <= self.sway <= 1:
            raise ValueError(f"corpus.sway is {self.sway}; it must lie in [0, 1], beyond it faces distort")


@dataclass(frozen=True)
class Performance:
    """One clip before it has a face: waveform of exactly T frames; weights float32 (T, A) in [0, 1], of the head in [-1, 1]."""

    speaker: Speaker
    sentence: Sentence
    split: Split
    waveform: Waveform
    phonemes: tuple[Phoneme, ...]
    weights: np.ndarray


class MouthBasis(Protocol):
    """encoders.bases.viseme_basis.VisemeBasis: names of V axes, and weights (T, V) -> displacement (T, L, D)."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def displacement(self, weights_TV: np.ndarray, /) -> np.ndarray: ...


def plan_corpus(config: CorpusConfig) -> list[tuple[Speaker, Sentence, Split]]:
    """Who says what, and to which split it belongs. No text of a test split is said in another split."""
    source, drawn, plan = SentenceSource(config.seed), Counter(), []
    for speaker in draw_speakers(config.seed, config.speakers, config.unseen_speakers):
        said: set[str] = set()
        for split in splits_of(config.sentences, speaker.unseen):
            count, share = drawn[split], config.grid_share
            kind: Kind = "grid" if int((count + 1) * share + 1e-9) > int(count * share + 1e-9) else "free"
            sentence = source.draw(split, kind)
            if sentence.name in said:  # the pool of free sentences has come round within one speaker
                sentence = source.draw(split, "grid")
            drawn[split] += 1
            said.add(sentence.name)
            plan.append((speaker, sentence, split))
    return plan


def perform(config: CorpusConfig, speaker: Speaker, sentence: Sentence, split: Split) -> Performance:
    """Says one sentence: silence before and after it, loudness and pace that vary, hiss, blinks, a head that sways."""
    rng = np.random.default_rng([config.seed, 2, speaker.face, *sentence.name.encode()])
    rate = int(np.clip(round(speaker.rate * rng.uniform(0.95, 1.06)), SLOWEST, FASTEST))
    pitch = int(np.clip(speaker.pitch + rng.integers(-3, 4), 0, 100))
    spoken = synthesise(sentence.spoken, speaker.voice, rate, pitch, speaker.intonation)
    utterance = with_silence(spoken, lead=rng.uniform(0.10, 0.20), tail=rng.uniform(0.15, 0.25))
    samples = utterance.waveform.samples
    frames = frames_of_samples(len(samples))
    samples = np.pad(samples, (0, samples_of_frames(frames) - len(samples)))
    samples = samples * (rng.uniform(0.4, 0.9) / np.abs(samples).max())
    samples = samples + rng.standard_normal(len(samples)) * 10 ** (speaker.noise_db / 20)

    weights_TA = articulate(utterance, frames)
    weights_TA[:, MOUTH] *= speaker.amplitude
    weights_TA[:, AXES.index("blink")] = blinks(frames, rng)
    weights_TA[:, HEAD] = config.sway * sway(frames, rng)
    waveform = Waveform(np.clip(samples, -1, 1).astype(np.float32))
    return Performance(speaker, sentence, split, waveform, utterance.phonemes, weights_TA)


def build_corpus(
    config: CorpusConfig,
    generator: Generator,
    basis: MouthBasis,
    out_dir: str | Path,
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Writes OUT/<speaker>/<sentence>.mp4, OUT/truth/<speaker>/<sentence>.npz and, last, OUT/corpus.json (returned).

    A clip that is there already, made of the same sound, movement, face, basis and generator, is kept: an interrupted
    build goes on where it stopped. workers: threads that render and encode.
    Raises ValueError for a basis with an axis that the visemes do not have.
    """
    if unknown := set(basis.names) - set(AXES):
        raise ValueError(
            f"the viseme basis has the axes {sorted(unknown)}; the visemes only know {', '.join(AXES)}"
        )
    out = Path(out_dir)
    performances = [perform(config, *planned) for planned in plan_corpus(config)]
    faces = {p.speaker.name: face_latent(generator, p.speaker, config.psi) for p in performances}
    ingredients = content_hash(
        basis.displacement(np.eye(len(basis.names), dtype=np.float32)), _weights_hash(generator), config.psi
    )
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"),
        TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, disable=not progress) as bar, ThreadPoolExecutor(max(1, workers)) as pool:
        task = bar.add_task("synthetic speakers", total=sum(len(p.weights) for p in performances))
        jobs = [
            pool.submit(_make_clip, p, faces[p.speaker.name], generator, basis, ingredients, out)
            for p in performances
        ]
        try:
            for job, performance in zip(jobs, performances, strict=True):
                job.result()
                bar.advance(task, len(performance.weights))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    clips = [
        {
            "file": _name(p, ".mp4"),
            "speaker": p.speaker.name,
            "sentence": p.sentence.name,
            "text": p.sentence.text,
            "split": p.split,
        }
        for p in performances
    ]
    speakers = [asdict(speaker) for speaker in {p.speaker.name: p.speaker for p in performances}.values()]
    listing = {"synthetic": True, "config": asdict(config), "clips": clips, "speakers": speakers}
    with atomic_path(out / "corpus.json") as temporary:
        temporary.write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
    return out / "corpus.json"


def _make_clip(
    performance: Performance,
    face_LD: np.ndarray,
    generator: Generator,
    basis: MouthBasis,
    ingredients: str,
    out: Path,
) -> None:
    """Renders and writes one clip; its truth comes last, so a truth file of the right recipe means a whole clip."""
    video, truth = out / _name(performance, ".mp4"), out / "truth" / _name(performance, ".npz")
    weights_TV = performance.weights[:, [AXES.index(name) for name in basis.names]]
    recipe = content_hash(weights_TV, performance.waveform.samples, performance.speaker.face, ingredients)
    if video.is_file() and _recipe_of(truth) == recipe:
        return
    w_TLD = (face_LD + basis.displacement(weights_TV)).astype(np.float32)
    write_video(video, render(generator, w_TLD), performance.waveform, synthetic=True)
    phonemes = performance.phonemes
    with atomic_path(truth) as temporary:
        np.savez_compressed(
            temporary,
            w=w_TLD.astype(np.float16),
            w_speaker=face_LD.astype(np.float32),
            weights=performance.weights,
            axes=np.array(AXES),
            phonemes=np.array([p.name for p in phonemes]),
            seconds=np.array([(p.start, p.end) for p in phonemes]),
            recipe=np.array(recipe),
        )


def _name(performance: Performance, suffix: str) -> str:
    return f"{performance.speaker.name}/{performance.sentence.name}{suffix}"


def _weights_hash(generator: Generator) -> str:
    """Of everything the network holds; "" for a stand-in that holds nothing."""
    network: object = generator
    state = network.state_dict() if isinstance(network, nn.Module) else {}
    return content_hash({name: value.cpu().numpy() for name, value in state.items()})


def _recipe_of(truth: Path) -> str | None:
    """What a finished clip was made from; None where there is none or the file is broken."""
    try:
        with np.load(truth) as content:
            return str(content["recipe"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
