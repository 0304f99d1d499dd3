"""Makes the embedded viseme basis and the landmark network (inputs and outputs: scripts/fit_visemes.py)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from configs.schema import Config
from encoders.bases.attribute_regression import HEAD_ROWS, LID_ROWS, covariance_direction, scaled_to_reach
from encoders.bases.viseme_basis import AXES, HEAD_AXES, VisemeBasis, load_viseme_basis
from encoders.bases.viseme_fit import (
    calibrated,
    choose_people,
    fit_basis,
    in_all_rows,
    start_directions,
)
from encoders.bases.viseme_targets import FITTED
from encoders.features.landmark_net import LandmarkNet, load_landmark_net, train_landmark_net
from encoders.footage.faces import DlibDetector
from metrics.report.plots import save_image
from scripts.assets.mouth_checks import landmarks_of
from scripts.core.networks import build_generator, generator_path, keyed
from scripts.core.provenance import save_provenance
from scripts.core.runtime import Run, shown
from stylegan2.images import to_uint8
from stylegan2.latent_pairs import SHARD, FolderPairs, draw_codes, make_pairs
from stylegan2.protocol import Generator, sample_w
from stylegan2.render import render
from stylegan2.weights import file_hash, save_weights

SHEET_PEOPLE = 6
REGRESSED = {"blink": LID_ROWS} | dict.fromkeys(HEAD_AXES, HEAD_ROWS)  # axis -> rows of W+ to fit
NOTES = {
    "licence": "non-commercial research use only; see docs/WEIGHTS.md",
    "made_by": "scripts/fit_visemes.py",
}


def fit_visemes(config: Config, run: Run) -> Path:
    folder, generator, settings = run.results / "visemes", build_generator(config, run), config.basis
    by_regression = [axis for axis in REGRESSED if axis in settings.axes]
    samples = labelled(generator, config, run) if by_regression or settings.landmark_steps else None
    with run.timed("landmark network"):
        net = LandmarkNet() if settings.landmark_steps else load_landmark_net()
        if samples and settings.landmark_steps:  # trained on the CPU, because it is small
            losses = train_landmark_net(net, *samples, settings.landmark_steps, config.seed)
            for loss in track(losses, "landmark network", settings.landmark_steps):
                run.fabric.log_dict({"train/loss/landmarks": loss})
    net.eval().requires_grad_(False)
    save_weights(net, folder / "landmark_net.safetensors", "landmark_net", {}, NOTES, half=True)

    net.to(run.device)
    directions = torch.from_numpy(load_viseme_basis().directions).to(run.device)
    with run.timed("basis"):
        # The head's axes and the lids, by regression.
        if samples:
            pairs, labels = samples
            codes = pairs.codes(np.arange(len(pairs))).numpy()
            people = choose_people(generator, net, replace(settings, people=48, seed=settings.seed + 2))[:16]
            for axis in by_regression:
                direction = covariance_direction(codes, labels, axis, REGRESSED[axis])
                direction = scaled_to_reach(direction, axis, generator, net, people)
                directions[AXES.index(axis)] = torch.from_numpy(direction)
        # The mouth's axes and the lids, through the landmark network.
        if any(axis in FITTED for axis in settings.axes):
            moving = start_directions(directions, settings)
            for losses in track(fit_basis(generator, net, moving, settings), "basis", settings.steps):
                run.fabric.log_dict({f"train/loss/{name}": value for name, value in losses.items()})
            fitted = calibrated(generator, net, in_all_rows(moving, generator, settings), settings)
            directions[: len(FITTED)] = fitted

    directions = directions.cpu()
    path = folder / "viseme_basis.safetensors"
    save_weights({"directions": directions}, path, "viseme_basis", {"names": AXES}, NOTES, half=True)
    # Write a sheet of people who were not used in the fit: the neutral face, then each axis at full amplitude.
    basis = VisemeBasis(AXES, directions.numpy())
    amplitudes = np.concatenate([np.zeros((1, len(AXES))), np.eye(len(AXES))])
    codes = sample_w(generator, SHEET_PEOPLE, config.seed + 1, 0.7).cpu().numpy()
    rows = [np.concatenate([*render(generator, w + basis.displacement(amplitudes))], 1) for w in codes]
    save_image(folder / "sheet.png", np.concatenate(rows))
    weights = {"generator": file_hash(generator_path(config))}
    save_provenance(folder, config, weights=weights, seconds=run.seconds)
    run.say(f"wrote {shown(folder)}")
    return folder


def labelled(generator: Generator, config: Config, run: Run) -> tuple[FolderPairs, np.ndarray]:
    """Samples and their landmarks by dlib, float32 [n, 68, 2], nan where no face is found."""
    pairs, detector = FolderPairs(config.pairs.folder or sampled(generator, config, run)), DlibDetector()
    images = (to_uint8(pairs.images(np.array([i])))[0] for i in range(len(pairs)))
    return pairs, landmarks_of(track(images, "dlib's landmarks", len(pairs)), detector).astype(np.float32)


def sampled(generator: Generator, config: Config, run: Run) -> Path:
    """The folder of generator samples with their codes, made if it is absent."""
    folder = keyed(run, "pairs", file_hash(generator_path(config)), config.pairs.count, config.seed)
    rng = np.random.default_rng([config.seed, 0])
    shards = make_pairs(
        folder, config.pairs.count, lambda n: draw_codes(generator, n, rng), generator, generator.resolution
    )
    for _ in track(shards, "sampling the generator", -(-config.pairs.count // SHARD)):
        pass
    return folder
