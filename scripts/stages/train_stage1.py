"""Stage 1: trains the network that maps speech and an identity latent to displacements in W+.

Writes results/<name>/stage1/trajectory.safetensors, recipe.json and state.pt, from which a stopped run resumes.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from audio.features import checked_encoder, extract_features, extract_features_packed
from audio.sound_copies import changed_copy
from audio.timing import frames_of_samples
from audio.waveform import Waveform
from configs.schema import Config
from encoders.content_hash import keyed_fields
from encoders.features.perceptual import demand_trunk
from encoders.geometry import aperture
from encoders.records import FrameClip
from scripts.core.networks import build_generator, build_teacher, in_precision, keyed, weight_hashes
from scripts.core.provenance import RECORD, save_provenance, write_json
from scripts.core.runtime import Run, RunError, demand_resume, shown
from scripts.stages.stage_results import Latents
from stylegan2.protocol import sample_w
from trajectory.data.windows import (
    TrajectoryClip,
    WindowSampler,
    offsets_of,
    read_clip,
    split_of,
    store_features,
    stored_tempo,
)
from trajectory.losses.lip_loss import fit_lip_axis
from trajectory.losses.rendered_losses import RenderedLoss
from trajectory.model.displacement import DisplacementSpace, TrajectoryError, fit_space
from trajectory.model.recurrent_net import TrajectoryNet
from trajectory.training.preview import PreviewMaker
from trajectory.training.stage1_loop import train
from trajectory.training.train_state import changed_keys

IDENTITIES = 1000  # samples of W that the projection of the identity latent is fitted on
# The parts of a config that determine the trained stage 1.
RECIPE = ("audio", "trajectory", "displacement", "losses", "teacher", "augment", "windows", "train")
PACK = 24  # copies whose features are extracted together
COPIES_VERSION = 1  # of the changes in audio/sound_copies.py; a new number makes the copies anew
LIP_CLIPS = 200  # training clips that the lip axis is fitted on, at most


def train_stage1(config: Config, run: Run, latents: Latents) -> Path:
    """The stage-1 checkpoint of this config, trained on `latents` if it does not exist."""
    config, run = stage1_config(config), stage1_run(config, run)
    config = _with_encoder_hash(config)
    folder = run.results / "stage1"
    checkpoint = folder / "trajectory.safetensors"
    recipe = _recipe(config, latents)
    if config.resume == "auto" and _finished(folder, recipe, config):
        run.say(f"stage 1: {shown(checkpoint)}")
        if not (folder / RECORD).is_file():  # the training was stopped after the model was written
            _record(folder, config, run, latents)
        return checkpoint
    run.say(f"training stage 1 into {shown(folder)} ({config.trajectory.cell}, {config.train.steps} steps)")
    with run.timed("stage1"):
        clips, copies = speech_clips(config, run, latents), sound_copies(config, run, latents)
        folder.mkdir(parents=True, exist_ok=True)
        _train(config, run, clips, copies, folder, recipe)
    _record(folder, config, run, latents)
    run.say(f"wrote {shown(checkpoint)}")
    return checkpoint


def _record(folder: Path, config: Config, run: Run, latents: Latents) -> None:
    if run.first:
        hashes = weight_hashes(config, trajectory=folder / "trajectory.safetensors")
        save_provenance(folder, config, data=latents.name, weights=hashes, seconds=run.seconds)


def check_training_inputs(config: Config) -> None:
    """Raises an error if a file that training needs is missing; called before any data are made."""
    if config.stage1.file is not None:
        return
    demand_resume(config, "state.pt")
    _with_encoder_hash(stage1_config(config))
    if config.losses.image:
        demand_trunk(config.teacher.net, config.teacher.family)


def stage1_config(config: Config) -> Config:
    """The config that stage 1 is trained with: with the run name that config.stage1 selects."""
    return config if config.stage1.name is None else replace(config, name=config.stage1.name)


def stage1_run(config: Config, run: Run) -> Run:
    """The run whose results hold stage 1: results/<stage1.name>, by default this run's."""
    name = config.stage1.name
    return run if name is None else replace(run, results=run.results.parent / name)


def _with_encoder_hash(config: Config) -> Config:
    """The config with the hash of the speech encoder's weights, if there is one; the checkpoint accepts no other
    encoder.
    """
    if config.audio.kind != "encoder":
        return config
    if config.trajectory.frontend != "dense":
        raise RunError("The features of a speech encoder are no spectrum: set trajectory.frontend=dense.")
    folder = Path(config.audio.encoder)
    name = str(folder.resolve()) if folder.is_dir() else config.audio.encoder
    audio = replace(config.audio, encoder=name)
    return replace(config, audio=replace(audio, encoder_sha256=checked_encoder(audio).sha256))


def speech_clips(config: Config, run: Run, latents: Latents) -> list[TrajectoryClip]:
    """Every inverted clip with its speech features, which are cached in data/features-<hash>."""
    folder = keyed(run, "features", latents.prepared.name, config.audio)
    for entry in run.own_share(latents.entries()):
        if not (folder / entry.file).is_file():
            clip = latents.frames(entry)
            features = extract_features(Waveform(clip.waveform), config.audio, len(clip), run.device)
            store_features(features, config.audio, folder / entry.file)
    run.barrier()
    clips = []
    for entry in latents.entries():
        paths = (latents.folder / entry.file, folder / entry.file, latents.prepared / entry.file)
        clips.append(TrajectoryClip(entry.name, entry.speaker, entry.split, entry.n_frames, *paths))
    return clips


def sound_copies(config: Config, run: Run, latents: Latents) -> list[TrajectoryClip]:
    """windows.sound_copies changed copies of each training clip's sound, cached in data/copies-<hash>."""
    folder = keyed(run, "copies", latents.prepared.name, config.audio, COPIES_VERSION, config.train.seed)
    made = [(entry, k) for entry in latents.entries("train") for k in range(config.windows.sound_copies)]
    files = {
        (entry.name, k): folder / f"{entry.file.removesuffix('.safetensors')}.{k}.safetensors"
        for entry, k in made
    }
    missing = [(entry, k) for entry, k in run.own_share(made) if not files[entry.name, k].is_file()]
    for first in track(range(0, len(missing), PACK), "changed copies of the sound", transient=True):
        pack, sounds, tempos, frames = missing[first : first + PACK], [], [], []
        for entry, k in pack:
            sound = Waveform(latents.frames(entry).waveform)
            copy, tempo = changed_copy(sound, [config.train.seed, k, *entry.name.encode()])
            sounds.append(copy)
            tempos.append(tempo)
            frames.append(min(frames_of_samples(len(copy.samples)), int(entry.n_frames / tempo)))
        features = extract_features_packed(sounds, config.audio, frames, run.device)
        for (entry, k), one, tempo in zip(pack, features, tempos, strict=True):
            store_features(one, config.audio, files[entry.name, k], tempo)
    run.barrier()
    clips = []
    for entry, k in made:
        file = files[entry.name, k]
        tempo, frames = stored_tempo(file, config.audio)
        paths = (latents.folder / entry.file, file, latents.prepared / entry.file)
        clips.append(TrajectoryClip(f"{entry.name}.{k}", entry.speaker, entry.split, frames, *paths, tempo))
    return clips


def _train(
    config: Config,
    run: Run,
    clips: list[TrajectoryClip],
    copies: list[TrajectoryClip],
    folder: Path,
    recipe: dict[str, Any],
) -> None:
    training, validation = split_of(clips, "train"), split_of(clips, "val")
    windows = (config.windows.batch, config.windows.length, config.train.seed)
    sampler = WindowSampler([*training, *copies], config.audio, config.augment, *windows)
    generator = in_precision(build_generator(config, run), config)
    identities_NLD = sample_w(generator, IDENTITIES, config.train.seed).cpu().numpy()
    space = fit_space(
        offsets_of(training, config.displacement.max_samples), identities_NLD, config.displacement
    )
    # Seeded here, so that the initial weights do not depend on which stages ran before.
    torch.manual_seed(config.train.seed)
    window = (config.audio.rows, config.audio.width)
    net = TrajectoryNet(config.trajectory, window, space.identity_dims, space.num_coefficients)
    rendered = None
    if config.losses.renders:
        rendered = RenderedLoss(generator, config.losses, build_teacher(config, run))
    illustrated = run.first and config.train.pictures_every > 0 and len(validation) > 0
    lip_axis = preview = None
    try:
        lip_axis = _lip_axis(training, space, config) if config.losses.lip > 0 or illustrated else None
    except TrajectoryError:
        if config.losses.lip > 0:
            raise
        run.say("no face was found in the training frames: TensorBoard will have no pictures")
    if illustrated and lip_axis is not None:
        preview = PreviewMaker(generator, validation, config.audio)
    if run.first:  # all parts were checked to be present
        _forget(folder, config.resume)
        write_json(folder / "recipe.json", recipe)
    run.barrier()
    resume = None if config.resume == "none" else config.resume
    parts = (net, space, sampler, validation)
    train(*parts, config.train, config.losses, folder, run.fabric, rendered, lip_axis, preview, resume)


def _lip_axis(clips: list[TrajectoryClip], space: DisplacementSpace, config: Config) -> np.ndarray:
    """The axis of coefficients that opens the lips, fitted to landmarks of up to LIP_CLIPS training clips."""
    pairs = []
    for i in np.unique(np.linspace(0, len(clips) - 1, min(len(clips), LIP_CLIPS)).round().astype(int)):
        frames = FrameClip.load(str(clips[i].frames))
        d_TLD = torch.from_numpy(read_clip(clips[i], config.audio).d[0])
        coefficients_TC = space.encode(d_TLD).numpy()
        pairs.append((coefficients_TC[frames.detected], aperture(frames.landmarks[frames.detected])))
    return fit_lip_axis(pairs)


def _recipe(config: Config, latents: Latents) -> dict[str, Any]:
    """Everything that determines the trained stage 1, as plain values."""
    recipe = {name: keyed_fields(getattr(config, name)) for name in RECIPE}
    return json.loads(json.dumps(recipe | {"data": latents.name, "precision": config.precision}))


def trained_on(weights: Path) -> str | None:
    """Name of the latents folder that a stage-1 checkpoint was trained on; None without the recipe beside it."""
    recipe = weights.parent / "recipe.json"
    return json.loads(recipe.read_text(encoding="utf-8"))["data"] if recipe.is_file() else None


def _forget(folder: Path, resume: str) -> None:
    """Removes the files of an earlier training, which could be mistaken for results of this training if it is
    stopped.
    """
    if resume == "auto":
        return  # of the same recipe
    for name in ("trajectory.safetensors", "state.pt", RECORD):
        file = folder / name
        if file.resolve() != Path(resume).resolve():
            file.unlink(missing_ok=True)


def _finished(folder: Path, recipe: dict[str, Any], config: Config) -> bool:
    """Whether the folder holds a finished model of this recipe; RunError if its model has another recipe."""
    if not (folder / "recipe.json").is_file():
        return False
    if not any((folder / name).is_file() for name in ("state.pt", "trajectory.safetensors")):
        return False
    saved = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    changed = changed_keys(saved, recipe)
    if changed:
        same_settings = saved | {"data": recipe["data"]} == recipe
        why = "on codes that were made anew since" if same_settings else "with other settings"
        option = "name" if config.stage1.name is None else "stage1.name"
        raise RunError(
            f"{shown(folder)} was trained {why} ({'; '.join(changed[:4])}): choose another {option}=NAME, or train it anew "
            "with train_stage1.py resume=none."
        )
    return (folder / "trajectory.safetensors").is_file()
