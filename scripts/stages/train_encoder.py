"""Trains an e4e encoder -> results/<name>/encoder/encoder.safetensors, the file that encoder.weights= takes.

By default the compact one, on images whose codes are known: those of pairs.folder=, or the generator's; groups of one
person with several expressions teach it how speech changes the code. experiment=e4e_ffhq trains the full one on
photographs.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import nn

from configs.schema import Config
from encoders.bases.viseme_basis import VISEMES, load_viseme_basis
from encoders.bases.viseme_fit import draw_expressions
from encoders.features.landmark_net import load_landmark_net
from encoders.features.perceptual import load_perceptual
from encoders.networks.e4e import FullEncoder
from encoders.networks.e4e_compact import CompactE4E, save_encoder
from encoders.networks.ir_se import load_identity, start_backbone
from encoders.training.encoder_data import (
    Draw,
    LivePairs,
    PairBatches,
    held_batches,
    photo_batches,
    photographs,
)
from encoders.training.encoder_losses import ImageLosses, mean_image_losses
from encoders.training.encoder_trainer import EncoderTrainer, Validate
from encoders.training.resume import checkpoint_to_resume
from scripts.core.networks import build_encoder, build_generator, generator_path, keyed
from scripts.core.provenance import save_provenance
from scripts.core.runtime import Run, RunError, demand_resume, shown
from stylegan2.image_sources import GeneratorSamples
from stylegan2.latent_pairs import SHARD, FolderPairs, draw_codes, make_pairs
from stylegan2.protocol import Generator
from stylegan2.weights import WeightsError, file_hash, read_weights

GROUP = 6  # expressions of one person
SIZE = 256  # px of the images in the folders of pairs


def train_encoder(config: Config, run: Run) -> Path:
    """The trained encoder's weight file."""
    folder, settings = run.results / "encoder", config.encoder_train
    demand_resume(config, "checkpoint.pt")
    generator = build_generator(config, run)

    # Encoder, losses and data
    with run.timed("encoder"):
        torch.manual_seed(config.seed)
        encoder = _new_encoder(config, run, generator).to(run.device)
        trainer = EncoderTrainer(encoder, settings, config.seed)
        losses = _image_losses(config, run, generator) if settings.has_image_terms else None
    with run.timed("pairs"):
        draw, validate, data = _data(config, run, generator, trainer, losses)
    run.say(f"training the {settings.network} encoder into {shown(folder)} on {data}")

    # Training
    with run.timed("encoder"):
        if (checkpoint := checkpoint_to_resume(config.resume, folder)) is not None:
            trainer.load(checkpoint)
        steps = trainer.train(draw, validate, losses, folder)
        for step, figures in track(steps, "encoder", settings.steps - trainer.step, transient=True):
            if any(name.startswith("val/") for name in figures):
                run.say(
                    f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
                )

    # Weight file and provenance
    made_by = generator_path(config)
    licence = read_weights(made_by).notes.get("licence", "as the generator's")
    path = folder / "encoder.safetensors"
    save_encoder(trainer.ema, path, {"licence": licence, "trained_on": file_hash(made_by)})
    save_provenance(folder, config, seconds=run.seconds, weights={"encoder": file_hash(path)})
    run.say(f"wrote {shown(path)}")
    return path


def _new_encoder(config: Config, run: Run, generator: Generator) -> CompactE4E | FullEncoder:
    """A new encoder with the generator's rows and w_avg and random weights, or the encoder of encoder.weights."""
    settings, w_avg = config.encoder_train, generator.w_avg.cpu()
    sizes = {"num_rows": generator.num_rows, "w_dim": generator.w_dim}
    if settings.warm_start:
        encoder = build_encoder(config, run)
    elif settings.network == "full":
        encoder = FullEncoder(replace(config.encoder_full, **sizes), w_avg)
        if settings.identity:
            start_backbone(encoder, load_identity(settings.identity), settings.identity)
    else:
        encoder = CompactE4E(replace(config.encoder_net, **sizes), w_avg)
    expected = FullEncoder if settings.network == "full" else CompactE4E
    if not isinstance(encoder, expected) or encoder.num_rows != generator.num_rows:
        raise WeightsError(
            f"encoder.weights={config.encoder.weights} is a {encoder.kind} network of {encoder.num_rows} rows; "
            f"encoder_train.network={settings.network} and the generator need {expected.kind} of {generator.num_rows}."
        )
    if isinstance(encoder, FullEncoder) and encoder.config.kind == "psp":
        raise RunError("Only e4e encoders are trained here, and this is pSp: set encoder_full.kind=e4e.")
    return encoder


def _image_losses(config: Config, run: Run, generator: Generator) -> ImageLosses:
    settings, device = config.encoder_train, run.device
    landmarks = load_landmark_net().to(device) if settings.landmark_weight else None
    identity = None
    if settings.identity and settings.identity_weight:
        identity = load_identity(settings.identity, device)
    return ImageLosses(
        generator, load_perceptual("alex", settings.perceptual).to(device), landmarks, identity
    )


def _data(
    config: Config, run: Run, generator: Generator, trainer: EncoderTrainer, losses: ImageLosses | None
) -> tuple[Draw, Validate, str]:
    """The training batches, the validation function, and a description of the data."""
    settings = config.encoder_train
    side = max(trainer.encoder.side, settings.image_size if losses is not None else 0)
    batch, held, device = settings.batch, settings.validation, run.device
    # Images with codes
    if settings.source == "pairs":
        singles, groups = _pairs(config, run, generator)
        share, rng = settings.group_share, trainer.rng
        pairs = PairBatches(singles, groups, GROUP, batch, share, held, side, rng, device)
        return pairs, pairs.validate, f"{len(singles)} images and {len(groups or [])} in groups"
    if settings.source == "live":
        share = settings.group_share
        directions = _directions(generator) if share else torch.empty(0)
        live = LivePairs(generator, directions, GROUP, batch, share, held, side, config.seed)
        return live, live.validate, "people drawn at every step"
    # Images without codes
    if settings.source == "photos" and settings.images:
        train, test = photographs(Path(settings.images), side, batch, held, config.seed, device)
        data = f"{len(train.paths)} photographs"
    else:
        train, test = (GeneratorSamples(generator, batch, seed) for seed in (config.seed, config.seed + 1))
        data = "samples of the generator"
    assert losses is not None  # without codes the settings require image terms

    def validate(encoder: nn.Module) -> dict[str, float]:
        batches = held_batches(photo_batches(test, side), held, batch)
        return mean_image_losses(encoder, losses, batches, settings)

    return photo_batches(train, side), validate, data


def _pairs(config: Config, run: Run, generator: Generator) -> tuple[FolderPairs, FolderPairs | None]:
    """Single images and groups, from a folder or made by the generator (data/pairs-<hash>, data/groups-<hash>)."""
    made_by, settings = file_hash(generator_path(config)), config.pairs
    if settings.folder is not None:
        singles = Path(settings.folder)
    else:
        singles = keyed(run, "pairs", made_by, settings.count, config.seed)
        rng = np.random.default_rng([config.seed, 0])
        _make(singles, settings.count, lambda n: draw_codes(generator, n, rng), generator)
    pairs = FolderPairs(singles)
    if not settings.groups:
        return pairs, None
    directions = _directions(generator)
    groups = keyed(run, "groups", made_by, file_hash(VISEMES), settings.groups, config.seed)
    rng = np.random.default_rng([config.seed, 1])

    def expressions(n: int) -> torch.Tensor:
        return torch.cat(list(draw_expressions(generator, directions, n // GROUP, GROUP, rng)))

    _make(groups, settings.groups * GROUP, expressions, generator)
    return pairs, FolderPairs(groups)


def _directions(generator: Generator) -> torch.Tensor:
    """(A, L, D): the viseme basis, for the expressions of the groups."""
    directions = torch.from_numpy(load_viseme_basis().directions).to(generator.w_avg.device)
    if directions.shape[1:] != (generator.num_rows, generator.w_dim):
        raise WeightsError(
            f"The viseme basis has {directions.shape[1]} rows of W+ and generator.weights {generator.num_rows}: train "
            "without groups of expressions (pairs.groups=0 encoder_train.group_share=0)."
        )
    return directions


def _make(folder: Path, count: int, draw: Callable[[int], torch.Tensor], generator: Generator) -> None:
    """Writes those pairs that are not in the folder yet, with a progress bar."""
    shards = make_pairs(folder, count, draw, generator, SIZE)
    for _ in track(shards, folder.name, -(-count // SHARD), transient=True):
        pass
