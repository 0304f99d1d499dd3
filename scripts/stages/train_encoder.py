"""Trains an e4e encoder -> results/<name>/encoder/encoder.safetensors, which is what encoder.weights= takes. By default
the compact one, on images whose codes are known: those of pairs.folder=, or the generator's; groups of one person
with several expressions teach it what talking changes. experiment=e4e_ffhq trains the full one on photographs.
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
from encoders.training.encoder_losses import ImageJudges, fidelity
from encoders.training.encoder_trainer import EncoderTrainer
from encoders.training.encoder_trainer import train_encoder as training
from scripts.core.networks import generator_path, keyed, the_encoder, the_generator
from scripts.core.provenance import save_provenance
from scripts.core.runtime import Run, demand_resume, shown
from stylegan2.image_sources import GeneratorSamples
from stylegan2.latent_pairs import SHARD, FolderPairs, draw_codes, make_pairs
from stylegan2.protocol import Generator
from stylegan2.weights import WeightsError, file_hash, read_weights

GROUP = 6  # expressions of one person
SIZE = 256

Validate = Callable[[nn.Module], dict[str, float]]


def train_encoder(config: Config, run: Run) -> Path:
    """The trained encoder's weight file."""
    folder, settings = run.results / "encoder", config.encoder_train
    demand_resume(config, "checkpoint.pt")
    generator = the_generator(config, run)
    with run.timed("encoder"):
        torch.manual_seed(config.seed)
        encoder = _new_encoder(config, run, generator).to(run.device)
        trainer = EncoderTrainer(encoder, settings, config.seed)
        judges = _judges(config, run, generator) if settings.sees_images else None
    with run.timed("pairs"):
        draw, validate, what = _data(config, run, generator, trainer, judges)
    run.say(f"training the {settings.network} encoder into {shown(folder)} on {what}")
    with run.timed("encoder"):
        checkpoint = folder / "checkpoint.pt" if config.resume == "auto" else Path(config.resume)
        if config.resume != "none" and (config.resume != "auto" or checkpoint.is_file()):
            trainer.load(checkpoint)
        steps = training(trainer, draw, validate, judges, folder)
        for step, losses in track(steps, "encoder", settings.steps - trainer.step, transient=True):
            if any(name.startswith("val/") for name in losses):
                run.say(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in losses.items()))
    theirs = read_weights(generator_path(config)).notes
    notes = {
        "licence": theirs.get("licence", "as the generator's"),
        "trained_on": file_hash(generator_path(config)),
    }
    path = folder / "encoder.safetensors"
    save_encoder(trainer.ema, path, notes)
    save_provenance(folder, config, seconds=run.seconds, weights={"encoder": file_hash(path)})
    run.say(f"wrote {shown(path)}")
    return path


def _new_encoder(config: Config, run: Run, generator: Generator) -> CompactE4E | FullEncoder:
    """With random weights around the generator's w_avg, or those of encoder.weights; rows as the generator reads."""
    settings, w_avg = config.encoder_train, generator.w_avg.cpu()
    sizes = {"num_rows": generator.num_rows, "w_dim": generator.w_dim}
    if settings.warm_start:
        encoder = the_encoder(config, run)
    elif settings.network == "full":
        encoder = FullEncoder(replace(config.encoder_full, **sizes), w_avg)
        if settings.identity:
            start_backbone(encoder, load_identity(settings.identity), settings.identity)
    else:
        encoder = CompactE4E(replace(config.encoder_net, **sizes), w_avg)
    wanted = FullEncoder if settings.network == "full" else CompactE4E
    if not isinstance(encoder, wanted) or encoder.num_rows != generator.num_rows:
        raise WeightsError(
            f"encoder.weights={config.encoder.weights} is a {encoder.kind} network of {encoder.num_rows} rows; "
            f"encoder_train.network={settings.network} and the generator need {wanted.kind} of {generator.num_rows}."
        )
    if isinstance(encoder, FullEncoder) and encoder.config.kind == "psp":
        raise WeightsError("Only e4e encoders are trained here, and this is pSp: set encoder_full.kind=e4e.")
    return encoder


def _judges(config: Config, run: Run, generator: Generator) -> ImageJudges:
    settings = config.encoder_train
    return ImageJudges(
        generator,
        load_perceptual("alex", settings.perceptual).to(run.device),
        load_landmark_net().to(run.device) if settings.landmark_weight else None,
        load_identity(settings.identity, run.device)
        if settings.identity and settings.identity_weight
        else None,
    )


def _data(
    config: Config, run: Run, generator: Generator, trainer: EncoderTrainer, judges: ImageJudges | None
) -> tuple[Draw, Validate, str]:
    """What is trained on, how it is validated, and both in words."""
    settings = config.encoder_train
    side = max(trainer.encoder.side, settings.image_size if judges is not None else 0)
    batch, held, device = settings.batch, settings.validation, run.device
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
    if settings.source == "photos" and settings.images:
        train, test = photographs(Path(settings.images), side, batch, held, config.seed, device)
        what = f"{len(train.paths)} photographs"
    else:
        train, test = (GeneratorSamples(generator, batch, seed) for seed in (config.seed, config.seed + 1))
        what = "samples of the generator"
    assert judges is not None  # the settings demand image terms when there are no codes

    def validate(encoder: nn.Module) -> dict[str, float]:
        return fidelity(encoder, judges, held_batches(photo_batches(test, side), held, batch), settings)

    return photo_batches(train, side), validate, what


def _pairs(config: Config, run: Run, generator: Generator) -> tuple[FolderPairs, FolderPairs | None]:
    """Single images and groups, from a folder or made by the generator (data/pairs-<hash>, data/groups-<hash>)."""
    made_by = file_hash(generator_path(config))
    if config.pairs.folder is not None:
        singles = Path(config.pairs.folder)
    else:
        singles = keyed(run, "pairs", made_by, config.pairs.count, config.seed)
        rng = np.random.default_rng([config.seed, 0])
        _make(singles, config.pairs.count, lambda n: draw_codes(generator, n, rng), generator)
    pairs = FolderPairs(singles)
    if not config.pairs.groups:
        return pairs, None
    directions = _directions(generator)
    groups = keyed(run, "groups", made_by, file_hash(VISEMES), config.pairs.groups, config.seed)
    rng = np.random.default_rng([config.seed, 1])

    def expressions(n: int) -> torch.Tensor:
        return torch.cat(list(draw_expressions(generator, directions, n // GROUP, GROUP, rng)))

    _make(groups, config.pairs.groups * GROUP, expressions, generator)
    return pairs, FolderPairs(groups)


def _directions(generator: Generator) -> torch.Tensor:
    """(A, L, D): the viseme basis, whose expressions the groups show."""
    directions = torch.from_numpy(load_viseme_basis().directions).to(generator.w_avg.device)
    if directions.shape[1:] != (generator.num_rows, generator.w_dim):
        raise WeightsError(
            f"The viseme basis has {directions.shape[1]} rows of W+ and generator.weights {generator.num_rows}: train "
            "without groups of expressions (pairs.groups=0 encoder_train.group_share=0)."
        )
    return directions


def _make(folder: Path, count: int, draw: Callable[[int], torch.Tensor], generator: Generator) -> None:
    for _ in track(
        make_pairs(folder, count, draw, generator, SIZE), folder.name, -(-count // SHARD), transient=True
    ):
        pass
