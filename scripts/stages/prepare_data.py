"""Videos -> aligned clips: data/prepared-<hash>/ with one FrameClip a video and manifest.json, which names every rejected
video and why. Without arguments the embedded corpus of synthetic speakers is built first, when it is absent.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import track

from audio.waveform import AudioError
from configs.schema import Config, DataConfig
from encoders.bases.viseme_basis import VISEMES, load_viseme_basis
from encoders.footage.faces import FaceDetector, FaceError
from encoders.footage.prepare import PrepareConfig, prepare_clip
from encoders.footage.video_reader import VideoError
from encoders.manifest import ClipEntry, Manifest, read_manifest, write_manifest
from encoders.records import FrameClip
from scripts.core.networks import generator_path, keyed, the_detector
from scripts.core.runtime import Run, RunError, shown
from stylegan2.weights import file_hash, load_generator
from trajectory.synthetic_corpus.build_corpus import build_corpus

VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv"}
REJECTED = (FaceError, VideoError, AudioError)


@dataclass(frozen=True)
class Source:
    """One video and what it is called here."""

    path: Path
    name: str
    speaker: str
    sentence: str
    split: str


def prepare_data(config: Config, run: Run) -> Path:
    """The folder of prepared clips, made if it is not there. Raises RunError if no clip is left."""
    sources = embedded_sources(config, run) if config.data.kind == "embedded" else folder_sources(config.data)
    named = [[s.name, s.speaker, s.sentence, s.split, file_hash(s.path)] for s in sources]
    folder = keyed(run, "prepared", config.prepare, config.data.detector, named)
    if (folder / "manifest.json").is_file():
        manifest = read_manifest(folder)
        run.say(f"prepared: {len(manifest.ok())} clips in {shown(folder)}")
    else:
        with run.timed("prepare"):
            manifest = _prepare_all(sources, folder, config, run)
    for entry in manifest.rejected():
        run.say(f"  rejected {entry.name}: {entry.reason}")
    return folder


def _prepare_all(sources: list[Source], folder: Path, config: Config, run: Run) -> Manifest:
    run.say(f"preparing {len(sources)} videos into {shown(folder)} (detector {config.data.detector})")
    tasks = [(source, folder, config.data, config.prepare) for source in run.mine(sources)]
    workers = min(config.workers, len(tasks))
    if workers > 1:
        # spawn: a forked child would inherit torch's threads and, on a GPU, its context
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            entries = list(track(pool.map(_prepare_one, tasks), "prepare", len(tasks), transient=True))
    else:
        entries = [_prepare_one(task) for task in track(tasks, "prepare", transient=True)]
    entries = _together(entries, len(sources), folder, run)
    manifest = Manifest(tuple(entries), {"detector": config.data.detector})
    if not manifest.ok():
        reasons = "; ".join(dict.fromkeys(entry.reason for entry in entries))
        raise RunError(f"None of the {len(entries)} videos can be used: {reasons}")
    if run.first:
        write_manifest(folder, manifest)
    run.meet()
    return manifest


def _together(entries: list[ClipEntry], total: int, folder: Path, run: Run) -> list[ClipEntry]:
    """The entries of all processes (Run.mine), in the order of the sources."""
    world, rank = run.fabric.world_size, run.fabric.global_rank
    if world == 1:
        return entries
    parts = [folder / f"part-{number}.json" for number in range(world)]
    write_manifest(parts[rank], Manifest(tuple(entries)))
    run.meet()
    shares = [read_manifest(part).clips for part in parts]
    run.meet()
    parts[rank].unlink()
    return [shares[number % world][number // world] for number in range(total)]


_detectors: dict[str, FaceDetector] = {}  # one per worker process: loading dlib's predictor takes a second


def _prepare_one(task: tuple[Source, Path, DataConfig, PrepareConfig]) -> ClipEntry:
    source, folder, data, settings = task
    file = f"{source.name}.safetensors"
    about = (source.speaker, source.sentence, source.split)
    try:
        if (folder / file).is_file():  # left by an interrupted run
            clip = FrameClip.load(folder / file)
        else:
            if data.detector not in _detectors:
                _detectors[data.detector] = the_detector(data)
            clip = prepare_clip(source.path, _detectors[data.detector], source.name, *about, settings)
            clip.save(folder / file)
    except REJECTED as error:
        return ClipEntry(source.name, "", *about, 0, "rejected", str(error))
    return ClipEntry(source.name, file, *about, len(clip))


def embedded_sources(config: Config, run: Run) -> list[Source]:
    """The synthetic speakers' videos in data/corpus-<hash>, built if they are not there."""
    hashes = [file_hash(generator_path(config)), file_hash(VISEMES)]
    folder = keyed(run, "corpus", config.corpus, hashes)
    if run.first and not (folder / "corpus.json").is_file():
        with run.timed("corpus"):
            run.say(f"building {config.corpus.speakers} synthetic speakers in {shown(folder)}")
            try:
                generator = load_generator(config.generator.weights)
                build_corpus(config.corpus, generator, load_viseme_basis(), folder, config.workers)
            except ModuleNotFoundError as error:
                raise RunError(
                    f"The synthetic speakers need {error.name}, which is not installed: run pip install -e '.[corpus]', "
                    "or give videos of your own with data=folder data.root=FOLDER."
                ) from error
    run.meet()
    clips = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["clips"]
    return [
        Source(folder / c["file"], c["file"].removesuffix(".mp4"), c["speaker"], c["sentence"], c["split"])
        for c in clips
    ]


def folder_sources(data: DataConfig) -> list[Source]:
    """Every video under data.root, with its speaker (the first sub-folder) and split."""
    root = Path(str(data.root))
    if not root.is_dir():
        raise RunError(f"data.root={root} is not a folder; give the folder that holds the videos.")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        raise RunError(f"{root} holds no video ({', '.join(sorted(VIDEOS))}); check data.root.")
    stems = [path.relative_to(root).with_suffix("").as_posix() for path in files]
    names = [
        path.relative_to(root).as_posix() if stems.count(stem) > 1 else stem
        for path, stem in zip(files, stems, strict=True)
    ]
    speakers = [name.split("/")[0] for name in names]
    splits = assign_splits(speakers, data)
    return [
        Source(path, name, speaker, name.removeprefix(f"{speaker}/"), split)
        for path, name, speaker, split in zip(files, names, speakers, splits, strict=True)
    ]


def assign_splits(speakers: list[str], data: DataConfig) -> list[str]:
    """A split for each clip, given its speaker: whole speakers are unseen, clips of the others seen or val.

    Shares are rounded, but a test split that is asked for gets at least one member where enough are there, and
    every training speaker keeps a clip to train on. Raises RunError for a named speaker who is not there.
    """
    rng = np.random.default_rng(data.seed)
    names = sorted(set(speakers))
    unseen = min(max(round(data.unseen * len(names)), int(data.unseen > 0)), len(names) - 1)
    held_out = {names[i] for i in rng.permutation(len(names))[:unseen]}
    if data.unseen_speakers:
        held_out = set(data.unseen_speakers)
    fixed = dict.fromkeys(held_out, "unseen") | dict.fromkeys(data.validation_speakers, "val")
    if strangers := sorted(fixed.keys() - set(names)):
        raise RunError(f"{', '.join(strangers)} of the split are no speakers under data.root={data.root}.")
    splits = [fixed.get(speaker, "train") for speaker in speakers]
    for speaker in names:
        clips = [i for i, name in enumerate(speakers) if name == speaker and splits[i] == "train"]
        clips = [clips[i] for i in rng.permutation(len(clips))]
        for split, share in (("seen", data.seen), ("val", data.validation)):
            count = max(round(share * len(clips)), int(share > 0))
            for i in clips[: min(count, sum(splits[i] == "train" for i in clips) - 1)]:
                splits[i] = split
            clips = [i for i in clips if splits[i] == "train"]
    return splits
