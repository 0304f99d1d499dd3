"""Builds the embedded corpus: mp4 files with sound, in which synthetic speakers say sentences.

    text -> espeak-ng: sound and phonemes -> visemes (T, A) -> w_t = w_speaker + sum_a weight_ta direction_a -> frames

The pipeline prepares and inverts these videos as it does real footage; the true codes beside them are for tests.
Shapes: T video frames, A articulatory axes (coarticulation.AXES), V axes of a viseme basis, L rows of W+, D = 512.
"""

import json
import math
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress
from torch import nn

from audio.timing import frames_of_samples, samples_of_frames
from audio.waveform import Waveform
from encoders.bases.viseme_basis import VisemeBasis
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
MOUTH = (0, 1, 2)  # open, wide, round: scaled by the speaker's amplitude; closures are not scaled


@dataclass
class CorpusConfig:
    """The size of the synthetic corpus and how its speakers look and move (all ours)."""

    seed: int = 0  # seed of faces, voices, sentences, blinks and head sway
    speakers: int = 12  # number of speakers, unseen ones included
    unseen_speakers: int = 3  # number of unseen speakers (the last ones), which are never trained on
    sentences: int = 20  # number of sentences of each speaker
    grid_share: float = 0.5  # share of sentences with GRID's grammar; the others are free
    psi: float = 0.7  # truncation of the faces, the usual value
    sway: float = 0.5  # amplitude of head motion; 1: about 6 degrees of yaw and 3 of pitch, beyond which faces are distorted

    def __post_init__(self) -> None:
        limits = {
            "seed": (0, math.inf),
            "speakers": (1, len(FACE_SEEDS)),
            "unseen_speakers": (0, self.speakers - 1),
            "sentences": (3, 1000),  # at least one for each split
            "grid_share": (0, 1),
            "psi": (0, 1),
            "sway": (0, 1),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"corpus.{name} is {getattr(self, name)}; it must lie in {low} .. {high}")


@dataclass(frozen=True)
class Performance:
    """One clip before it is rendered.

    waveform: of exactly T frames; weights: float32 (T, A) in [0, 1], of the head in [-1, 1].
    """

    speaker: Speaker
    sentence: Sentence
    split: Split
    waveform: Waveform
    phonemes: tuple[Phoneme, ...]
    weights: np.ndarray

    @property
    def name(self) -> str:
        """Name of the clip; also its path without the suffix."""
        return f"{self.speaker.name}/{self.sentence.name}"


def plan_corpus(config: CorpusConfig) -> list[tuple[Speaker, Sentence, Split]]:
    """Speaker, sentence and split of every clip. No text of a test split is said in another split."""
    source, drawn, plan = SentenceSource(config.seed), Counter(), []
    for speaker in draw_speakers(config.seed, config.speakers, config.unseen_speakers):
        said: set[str] = set()
        for split in splits_of(config.sentences, speaker.unseen):
            count, share = drawn[split], config.grid_share
            kind: Kind = "grid" if int((count + 1) * share + 1e-9) > int(count * share + 1e-9) else "free"
            sentence = source.draw(split, kind)
            if sentence.name in said:  # this split's free sentences repeat within one speaker
                sentence = source.draw(split, "grid")
            drawn[split] += 1
            said.add(sentence.name)
            plan.append((speaker, sentence, split))
    return plan


def perform(config: CorpusConfig, speaker: Speaker, sentence: Sentence, split: Split) -> Performance:
    """Speech and motion of one sentence, with silence around it, varied loudness and pace, noise, blinks and head sway."""
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
    basis: VisemeBasis,
    out_dir: str | Path,
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Writes OUT/<speaker>/<sentence>.mp4, OUT/truth/<speaker>/<sentence>.npz and, last, OUT/corpus.json (returned).

    Clips that were made before from the same sound, motion, face, basis and generator are kept, so an interrupted build
    continues. workers: threads that render and encode.
    Raises ValueError for a basis with an axis that articulation does not have.
    """
    if unknown := set(basis.names) - set(AXES):
        raise ValueError(
            f"the viseme basis has the axes {sorted(unknown)}; the visemes support only {', '.join(AXES)}"
        )
    out = Path(out_dir)
    performances = [perform(config, *planned) for planned in plan_corpus(config)]
    faces = {p.speaker.name: face_latent(generator, p.speaker, config.psi) for p in performances}
    common = content_hash(
        basis.displacement(np.eye(len(basis.names), dtype=np.float32)), _weights_hash(generator), config.psi
    )

    # Render and encode the clips.
    with Progress(disable=not progress) as bar, ThreadPoolExecutor(max(1, workers)) as pool:
        task = bar.add_task("synthetic speakers", total=sum(len(p.weights) for p in performances))
        jobs = [
            pool.submit(_make_clip, p, faces[p.speaker.name], generator, basis, common, out)
            for p in performances
        ]
        try:
            for job, performance in zip(jobs, performances, strict=True):
                job.result()
                bar.advance(task, len(performance.weights))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

    # Write the list of clips.
    clips = [
        {
            "file": f"{p.name}.mp4",
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
    basis: VisemeBasis,
    common: str,
    out: Path,
) -> None:
    """Renders and writes one clip. common: hash of what all clips share.

    The truth file is written last, so one with the right recipe means that the clip is complete.
    """
    video, truth = out / f"{performance.name}.mp4", out / "truth" / f"{performance.name}.npz"
    weights_TV = performance.weights[:, [AXES.index(name) for name in basis.names]]
    recipe = content_hash(weights_TV, performance.waveform.samples, performance.speaker.face, common)
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


def _weights_hash(generator: Generator) -> str:
    """Hash of all tensors of a generator."""
    state = generator.state_dict() if isinstance(generator, nn.Module) else {}
    return content_hash({name: value.cpu().numpy() for name, value in state.items()})


def _recipe_of(truth: Path) -> str | None:
    """The recipe of a complete clip; None if there is none or the file is damaged."""
    try:
        with np.load(truth) as content:
            return str(content["recipe"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
