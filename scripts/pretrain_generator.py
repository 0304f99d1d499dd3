"""python scripts/pretrain_generator.py [pretrain.images=FOLDER] [pretrain.teacher=FILE] [pretrain.minutes=30]

Trains a StyleGAN2 on a folder of images, or (without one) distils it from a teacher with the same W: by default the
embedded generator. Writes results/<name>/pretrain/{generator.safetensors,state.pt,samples.png}; the first is what
generator.weights= takes. Meant for a GPU (precision=bf16-mixed): on a CPU use small sizes and patience.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from typing import Any

import torch

from configs.schema import Config
from scripts.core.networks import the_teacher
from scripts.core.provenance import save_provenance
from scripts.core.runtime import Run, launch, shown
from stylegan2.image_sources import ImageFolder, Source, Teacher
from stylegan2.pretrain import Log, Perceptual, PretrainConfig, build_networks, pretrain
from stylegan2.weights import EMBEDDED, file_hash, load_generator, read_weights


def pretrain_generator(config: Config, run: Run) -> Path:
    """Hydra's side: settings, logging and provenance around `train_generator`."""
    settings = config.pretrain
    if config.bf16:
        settings = replace(settings, precision="bfloat16")
    folder = run.results / "pretrain"
    resume = None if config.resume == "none" else config.resume

    def log(step: int, values: dict[str, float]) -> None:
        run.fabric.log_dict({f"train/loss/{name}": value for name, value in values.items()}, step)
        if step % settings.save_every == 0 and not sys.stdout.isatty():  # a log file shows no progress bar
            run.say(f"step {step}: " + " ".join(f"{name} {value:.3f}" for name, value in values.items()))

    lesson = f"distilling {settings.teacher}" if settings.images is None else f"learning {settings.images}"
    run.say(f"{lesson} at {settings.resolution} px into {shown(folder)}")
    with run.timed("pretrain"):
        notes = train_generator(settings, folder, run.device, the_teacher(config, run), log, resume)
    save_provenance(folder, config, seconds=run.seconds, notes=notes)
    run.say(f"wrote {shown(folder / 'generator.safetensors')} and samples.png beside it")
    return folder / "generator.safetensors"


def train_generator(
    settings: PretrainConfig,
    folder: Path,
    device: torch.device | str = "cpu",
    perceptual: Perceptual | None = None,
    log: Log | None = None,
    resume: str | Path | None = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Source, networks and training from plain values; returns the lineage that is written into the weights."""
    source: Source
    if settings.images is not None:
        generator, discriminator = build_networks(settings, device=device)
        source = ImageFolder(
            settings.images, settings.resolution, settings.batch, settings.seed, settings.flip, device
        )
        notes = {"trained_on": f"{len(source.paths)} images", "licence": "as the images allow"}
    else:
        teacher = load_generator(settings.teacher, device)
        generator, discriminator = build_networks(settings, teacher, device)
        psi = (settings.psi_low, settings.psi_high)
        source = Teacher(teacher, generator, settings.batch, settings.seed, psi, settings.mixing)
        notes = lineage(settings.teacher)
    pretrain(
        generator, discriminator, source, settings, folder, perceptual, log, resume, notes, progress=progress
    )
    return notes


def lineage(teacher: str) -> dict[str, Any]:
    """What a student inherits: its teacher's licence and origin, and which file that was."""
    path = EMBEDDED if teacher == "embedded" else Path(teacher)
    theirs = read_weights(path).notes
    licence = theirs.get("licence", "as the teacher's")
    return {
        "licence": licence,
        "distilled_from": {"file": path.name, "sha256": file_hash(path), "notes": theirs},
    }


if __name__ == "__main__":
    launch(pretrain_generator)
