"""python scripts/fit_visemes.py [pairs.folder=FOLDER] [pairs.count=4000]

Makes the embedded viseme basis: trains the landmark network on dlib's labels of generator samples, then fits the
articulatory axes through it (encoders/basis_fit.py). Samples come from a folder of faces-NNN.tar + w-NNN.npz, or,
without one, from the generator. Writes results/<name>/visemes/{landmark_net,viseme_basis}.safetensors, a sheet of
people x axes and what dlib measures on it. About 30 minutes on two cores.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from configs.schema import Config
from encoders.basis import AXES, VisemeBasis
from encoders.basis_fit import calibrated, fit_basis, in_all_rows, start_directions
from encoders.faces import DlibDetector, face_in_crop
from encoders.geometry import aperture, width
from encoders.landmark_net import LandmarkNet, train_landmark_net
from scripts.provenance import save_provenance
from scripts.runtime import Run, launch, shown
from scripts.stages import generator_path, keyed, the_generator
from stylegan2.images import to_uint8
from stylegan2.pairs import SHARD, FolderPairs, draw_codes, make_pairs
from stylegan2.protocol import Generator, sample_w
from stylegan2.weights import atomic_path, file_hash, save_weights

SHEET_PEOPLE = 12
NOTES = {
    "licence": "non-commercial research use only; see docs/WEIGHTS.md",
    "made_by": "scripts/fit_visemes.py",
}


def fit_visemes(config: Config, run: Run) -> Path:
    folder, generator = run.results / "visemes", the_generator(config, run)
    pairs = FolderPairs(config.pairs.folder or sampled(generator, config, run))
    detector = DlibDetector()
    labels = np.full((len(pairs), 68, 2), np.nan, np.float32)
    for i in track(range(len(pairs)), "dlib's landmarks"):
        face = face_in_crop(detector, to_uint8(pairs.images(np.array([i])))[0])
        if face is not None:
            labels[i] = face.landmarks
    with run.timed("landmark network"):
        net = LandmarkNet()
        losses = train_landmark_net(net, pairs, labels, config.basis.landmark_steps, config.seed)
        for loss in track(losses, "landmark network", config.basis.landmark_steps):
            run.fabric.log_dict({"train/loss/landmarks": loss})
    net.eval().requires_grad_(False)
    save_weights(net, folder / "landmark_net.safetensors", "landmark_net", {}, NOTES, half=True)

    with run.timed("basis"):
        moving = start_directions(generator, config.basis)
        for losses in track(fit_basis(generator, net, moving, config.basis), "basis", config.basis.steps):
            run.fabric.log_dict({f"train/loss/{name}": value for name, value in losses.items()})
    directions = calibrated(generator, net, in_all_rows(moving, generator, config.basis), config.basis)
    basis = VisemeBasis(AXES, directions.numpy())
    tensors = {"directions": directions}
    save_weights(
        tensors, folder / "viseme_basis.safetensors", "viseme_basis", {"names": AXES}, NOTES, half=True
    )
    measured = sheet(generator, basis, detector, config.seed + 1, folder / "sheet.png")
    save_provenance(
        folder,
        config,
        weights={"generator": file_hash(generator_path(config))},
        seconds=run.seconds,
        notes=measured,
    )
    run.say(f"{measured}; wrote {shown(folder)}")
    return folder


def sheet(
    generator: Generator, basis: VisemeBasis, detector: DlibDetector, seed: int, path: Path
) -> dict[str, dict[str, float]]:
    """Other people than the fit's, neutral and at full amplitude of each axis; what dlib measures, mean over people."""
    amplitudes = np.concatenate([np.zeros((1, len(AXES))), np.eye(len(AXES))])
    moves = torch.from_numpy(basis.displacement(amplitudes))
    rows, points = [], []
    for w in sample_w(generator, SHEET_PEOPLE, seed, 0.7):
        with torch.inference_mode():
            images = to_uint8(generator.synthesis(w + moves))
        rows.append(np.concatenate(list(images), 1))
        faces = [face_in_crop(detector, image) for image in images]
        points.append([np.full((68, 2), np.nan) if face is None else face.landmarks for face in faces])
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary)
    landmarks = np.array(points)
    change = {"aperture": aperture(landmarks), "width": width(landmarks)}
    means = {name: np.nanmean(value[:, 1:] - value[:, :1], axis=0) for name, value in change.items()}
    return {name: dict(zip(AXES, mean.round(3).tolist(), strict=True)) for name, mean in means.items()}


def sampled(generator: Generator, config: Config, run: Run) -> Path:
    """Samples of the generator itself with their codes."""
    folder = keyed(run, "pairs", file_hash(generator_path(config)), config.pairs.count, config.seed)
    rng = np.random.default_rng([config.seed, 0])
    shards = make_pairs(
        folder, config.pairs.count, lambda n: draw_codes(generator, n, rng), generator, generator.resolution
    )
    for _ in track(shards, "sampling the generator", -(-config.pairs.count // SHARD)):
        pass
    return folder


if __name__ == "__main__":
    launch(fit_visemes)
