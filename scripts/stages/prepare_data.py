"""Prepares videos: aligned clips with landmarks and sound, and a manifest that lists rejected videos with the
reasons.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import track

from audio.waveform import AudioError
from configs.schema import Config
from encoders.bases.viseme_basis import VISEMES, load_viseme_basis
from encoders.footage.clip_figures import clip_figures
from encoders.footage.corpora import DataConfig, SourceVideo, folder_videos, missing_speakers
from encoders.footage.faces import FaceDetector, FaceError
from encoders.footage.picture_folder import source_hash
from encoders.footage.prepare import PrepareConfig, prepare_clip
from encoders.footage.video_reader import VideoError
from encoders.manifest import ClipEntry, Manifest, read_manifest, write_manifest
from encoders.records import FrameClip
from scripts.core.cpu import computes_bfloat16
from scripts.core.networks import build_detector, generator_path, keyed
from scripts.core.processes import in_processes
from scripts.core.runtime import Run, RunError, shown
from scripts.stages.stage_results import Prepared
from scripts.stages.synchronise import synchronise
from stylegan2.load import load_generator
from stylegan2.weights import file_hash
from trajectory.model.predictor import shipped_stage1
from trajectory.synthetic_corpus.build_corpus import build_corpus

REJECTED = (FaceError, VideoError, AudioError)


def prepare_data(config: Config, run: Run) -> Prepared:
    """The prepared clips of config.data; those that do not exist yet are made. Raises RunError if no video is
    usable.
    """
    data = config.data
    videos = [] if data.kind == "embedded" else folder_videos(data)
    own = {video.name for video in videos}  # embedded speakers have no offset of the sound
    if data.kind == "embedded" or data.with_embedded:
        videos += embedded_videos(config, run)
    if missing := missing_speakers(config.data, {video.speaker for video in videos}):
        run.say(f"not in the data, so left out of the split: {', '.join(missing)}")
    named = [[v.name, v.speaker, v.sentence, v.split, source_hash(v.path, v.sound)] for v in videos]
    estimated = own and config.prepare.sync == "auto"
    synchronised_by = [data.one_sound_offset, file_hash(shipped_stage1())] if estimated else []
    prepared = Prepared(keyed(run, "prepared", config.prepare, data.detector, named, synchronised_by))
    if not (prepared.folder / "manifest.json").is_file():
        with run.timed("prepare"):
            _prepare_all(videos, own, prepared.folder, config, run)
    run.say(f"prepared: {len(prepared.manifest.ok())} clips in {shown(prepared.folder)}")
    for reading, count in Counter(entry.reading for entry in prepared.manifest.ok()).items():
        if reading:
            run.say(f"  {count} clips: {reading}")
    for entry in prepared.manifest.rejected():
        run.say(f"  rejected {entry.name}: {entry.reason}")
    return prepared


def _prepare_all(videos: list[SourceVideo], own: set[str], folder: Path, config: Config, run: Run) -> None:
    """own: names of the clips whose sound is synchronised."""
    run.say(f"preparing {len(videos)} videos into {shown(folder)} (detector {config.data.detector})")
    tasks = [(video, folder, config.data, config.prepare) for video in run.own_share(videos)]
    workers = min(config.workers, len(tasks))

    def alone() -> Iterator[ClipEntry]:
        return map(_prepare_one, tasks)

    made = in_processes(_prepare_one, tasks, workers, alone, run.say) if workers > 1 else alone()
    entries = list(track(made, "prepare", len(tasks), transient=True))
    entries = _entries_of_all_processes(entries, len(videos), folder, run)
    usable = [entry for entry in entries if entry.status == "ok" and entry.name in own]
    moved = synchronise(usable, folder, config.prepare, config.data.one_sound_offset, run)
    changed = {entry.name: entry for entry in moved}
    entries = [_judged(changed.get(entry.name, entry), config.prepare) for entry in entries]
    manifest = Manifest(tuple(entries), {"detector": config.data.detector})
    if not manifest.ok():
        reasons = "; ".join(dict.fromkeys(entry.reason for entry in entries))
        raise RunError(f"None of the {len(entries)} videos can be used: {reasons}")
    if run.first:
        write_manifest(folder, manifest)
    run.barrier()


def _entries_of_all_processes(
    entries: list[ClipEntry], total: int, folder: Path, run: Run
) -> list[ClipEntry]:
    """The entries of all processes, in the order of the videos (Run.own_share gives every world_size-th video to one
    process).
    """
    world, rank = run.fabric.world_size, run.fabric.global_rank
    if world == 1:
        return entries
    parts = [folder / f"part-{number}.json" for number in range(world)]
    write_manifest(parts[rank], Manifest(tuple(entries)))
    run.barrier()
    shares = [read_manifest(part).clips for part in parts]
    run.barrier()
    parts[rank].unlink()
    return [shares[number % world][number // world] for number in range(total)]


_detectors: dict[str, FaceDetector] = {}  # one per worker process: loading dlib's predictor takes a second


def _prepare_one(task: tuple[SourceVideo, Path, DataConfig, PrepareConfig]) -> ClipEntry:
    video, folder, data, settings = task
    file = f"{video.name}.safetensors"
    labels = (video.speaker, video.sentence, video.split)
    try:
        if (folder / file).is_file():  # made by an earlier run that was stopped
            clip = FrameClip.load(folder / file)
        else:
            if data.detector not in _detectors:
                _detectors[data.detector] = build_detector(data)
            detector = _detectors[data.detector]
            clip = prepare_clip(video.path, detector, video.name, *labels, settings, video.sound)
            clip.save(folder / file)
    except REJECTED as error:
        return ClipEntry(video.name, "", *labels, 0, "rejected", str(error))
    return ClipEntry(video.name, file, *labels, len(clip), figures=clip_figures(clip), reading=clip.reading)


def _judged(entry: ClipEntry, prepare: PrepareConfig) -> ClipEntry:
    """The entry, rejected if one of its figures lies below its limit."""
    if entry.status != "ok" or not (reason := prepare.unsuitable(entry.figures)):
        return entry
    return replace(entry, file="", n_frames=0, status="rejected", reason=reason)


def embedded_videos(config: Config, run: Run) -> list[SourceVideo]:
    """The synthetic speakers' videos in data/corpus-<hash>; those that do not exist yet are built, on the CPU, in
    bfloat16 if `precision` says so and this CPU has it.
    """
    hashes = [file_hash(generator_path(config)), file_hash(VISEMES)]
    half = config.bf16 and computes_bfloat16()
    folder = keyed(run, "corpus", config.corpus, hashes, *(["bfloat16"] if half else []))
    if run.first and not (folder / "corpus.json").is_file():
        with run.timed("corpus"):
            kind = "bfloat16" if half else "float32"
            run.say(
                f"building {config.corpus.speakers} synthetic speakers in {shown(folder)}, rendered in {kind}"
            )
            try:
                generator = load_generator(config.generator.weights)
                generator.compute_in(torch.bfloat16 if half else None)
                build_corpus(config.corpus, generator, load_viseme_basis(), folder, config.workers)
            except ModuleNotFoundError as error:
                raise RunError(
                    f"The synthetic speakers need {error.name}, which is not installed: run pip install -e '.[corpus]', "
                    "or give videos of your own with data=folder data.root=FOLDER."
                ) from error
    run.barrier()
    clips = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["clips"]
    return [
        SourceVideo(
            folder / c["file"], c["file"].removesuffix(".mp4"), c["speaker"], c["sentence"], c["split"]
        )
        for c in clips
    ]
