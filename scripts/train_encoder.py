"""python scripts/train_encoder.py [pairs.folder=FOLDER] [encoder_train.steps=6000] [resume=auto|PATH|none]

Trains the compact e4e on images whose codes are known -> results/<name>/encoder/encoder.safetensors, which is what
encoder.weights= takes. Without pairs.folder= the generator makes the images; groups of one person with several
expressions teach it what talking changes.
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

import numpy as np
import torch
from rich.progress import track

from configs.schema import Config
from encoders.basis import VISEMES, load_viseme_basis
from encoders.basis_fit import draw_expressions
from encoders.e4e import CompactE4E, save_encoder
from encoders.landmark_net import load_landmark_net
from encoders.train import EncoderTrainer, ImageJudges
from encoders.train import train_encoder as training
from scripts.provenance import save_provenance
from scripts.runtime import Run, launch, shown
from scripts.stages import generator_path, keyed, the_encoder, the_generator, the_teacher
from stylegan2.pairs import SHARD, FolderPairs, draw_codes, make_pairs
from stylegan2.protocol import Generator
from stylegan2.weights import file_hash, read_weights

GROUP = 6  # expressions of one person
SIZE = 256


def train_encoder(config: Config, run: Run) -> Path:
    """The trained encoder's weight file."""
    folder = run.results / "encoder"
    generator = the_generator(config, run)
    with run.timed("pairs"):
        singles, groups = _pairs(config, run, generator)
    run.say(
        f"training the encoder into {shown(folder)} on {len(singles)} images and {len(groups or [])} in groups"
    )
    settings = config.encoder_train
    with run.timed("encoder"):
        torch.manual_seed(config.seed)
        encoder = (
            the_encoder(config, run)
            if settings.warm_start
            else CompactE4E(config.encoder_net, generator.w_avg.cpu())
        )
        trainer = EncoderTrainer(encoder, settings, config.seed)
        checkpoint = folder / "checkpoint.pt" if config.resume == "auto" else Path(config.resume)
        if config.resume != "none" and (config.resume != "auto" or checkpoint.is_file()):
            trainer.load(checkpoint)
        judges = None
        if settings.image_weight or settings.landmark_weight:
            judges = ImageJudges(generator.requires_grad_(False), the_teacher(run), load_landmark_net())
        steps = training(trainer, singles, groups, GROUP, judges, folder)
        for step, losses in track(steps, "encoder", settings.steps - trainer.step, transient=True):
            if "val/latent" in losses:
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


def _pairs(config: Config, run: Run, generator: Generator) -> tuple[FolderPairs, FolderPairs | None]:
    """Single images and groups, from a folder or made by the generator (data/pairs-<hash>, data/groups-<hash>)."""
    made_by = file_hash(generator_path(config))
    if config.pairs.folder is not None:
        singles = Path(config.pairs.folder).expanduser()
    else:
        singles = keyed(run, "pairs", made_by, config.pairs.count, config.seed)
        rng = np.random.default_rng([config.seed, 0])
        _make(singles, config.pairs.count, lambda n: draw_codes(generator, n, rng), generator)
    if not config.pairs.groups:
        return FolderPairs(singles), None
    basis = load_viseme_basis()
    groups = keyed(run, "groups", made_by, file_hash(VISEMES), config.pairs.groups, config.seed)
    rng, directions = np.random.default_rng([config.seed, 1]), torch.from_numpy(basis.directions)

    def expressions(n: int) -> torch.Tensor:
        return torch.cat(list(draw_expressions(generator, directions, n // GROUP, GROUP, rng)))

    _make(groups, config.pairs.groups * GROUP, expressions, generator)
    return FolderPairs(singles), FolderPairs(groups)


def _make(folder: Path, count: int, draw: Callable[[int], torch.Tensor], generator: Generator) -> None:
    for _ in track(
        make_pairs(folder, count, draw, generator, SIZE), folder.name, -(-count // SHARD), transient=True
    ):
        pass


if __name__ == "__main__":
    launch(train_encoder)
