"""Measurements of check_assets.py on single images: embedded generator against uncut network, and the encoder.

The seed of the codes was never used in training. Distances compare uint8 images at 256 px. Identity is dlib's
distance, or UNLIKE if a face is not found. Shapes: N images, L rows of W+, D = 512.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from configs.schema import Config
from encoders.features.identity import DlibIdentity, identity_distance
from encoders.features.perceptual import load_perceptual
from encoders.footage.faces import FaceDetector, face_in_crop
from encoders.invert import InversionConfig, refine, start_codes
from encoders.manifest import read_manifest
from encoders.records import FrameClip
from metrics.measures.fid import Gaussian, frechet_distance
from metrics.report.plots import save_image
from scripts.assets.mouth_checks import sharpness
from scripts.core.runtime import Run
from scripts.stages.prepare_data import prepare_data
from stylegan2.images import to_tensor, to_uint8
from stylegan2.latent_pairs import render_codes
from stylegan2.protocol import Generator, sample_w

SIZE, CHUNK = 256, 4  # px of the compared images; images rendered at once
SHEET_FACES, SHEET_COLUMNS = 32, 8
UNLIKE = 1.0  # identity distance if a face is not found
REFINING = 100  # steps of refinement on clips
STILL_FRAMES, NOISE = 16, 2.0  # of the jitter: noisy copies of one image, standard deviation in grey levels


class FaceEmbedder:
    """Finds the face of an aligned image uint8 (256, 256, 3) and embeds it, (128,); None without a face."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector, self.identity = detector, DlibIdentity()

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        face = face_in_crop(self.detector, image)
        return None if face is None else self.identity.embed(image, face.landmarks)


def identity_or_unlike(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """Distance of two embeddings, UNLIKE if one is missing."""
    return UNLIKE if a is None or b is None else identity_distance(a, b)


def mean(values: Any, digits: int = 4) -> float:
    return round(float(np.mean(values)), digits)


def median(values: Any, digits: int = 4) -> float:
    return round(float(np.median(values)), digits)


def _codes(generator: Generator, seed: int, psi: float, count: int, what: str) -> Iterator[Tensor]:
    """Yields codes in chunks of equal size, so that consecutive chunks can be compared; what: label of the progress."""
    w_NLD = sample_w(generator, count - count % CHUNK, seed, psi)
    yield from track(w_NLD.split(CHUNK), what, transient=True)


def generator_against(
    uncut: Generator, cut: Generator, psi: float, config: Config, detector: FaceDetector, sheet: Path
) -> dict[str, Any]:
    """Compares the cut and the uncut generator on the same codes; writes a sheet with the uncut one's faces above.

    diversity: mean ST-LPIPS alex between images CHUNK apart in the list, and sharpness: both over the uncut one's.
    frechet_dlib: Fréchet distance of dlib's embeddings; frechet_dlib_floor: that of other samples of the uncut one.
    """
    embed, count, device = FaceEmbedder(detector), config.check.samples, cut.w_avg.device
    alex, vgg = (load_perceptual(name).to(device) for name in ("alex", "vgg"))
    distances: dict[str, list[float]] = {"alex": [], "vgg": [], "identity": []}
    # Pairs of lists: for the uncut and for the cut generator.
    spread, sharp, detected = ([], []), ([], []), ([], [])
    embeddings, floor = (Gaussian(), Gaussian()), Gaussian()
    sheet_faces: list[np.ndarray] = []  # (2, H, W, 3): uncut, cut
    previous: list[Tensor] | None = None
    for w_NLD in _codes(cut, config.check.seed, psi, count, f"generator, psi {psi}"):
        rendered = [to_uint8(render_codes(net, w_NLD, SIZE)) for net in (uncut, cut)]
        images = [to_tensor(image, device) for image in rendered]
        # Perceptual distances: between the two generators, and between consecutive chunks (diversity).
        with torch.inference_mode():
            distances["alex"] += alex(*images).tolist()
            distances["vgg"] += vgg(*images).tolist()
            if previous is not None:
                for values, old, new in zip(spread, previous, images, strict=True):
                    values += alex(old, new).tolist()
        previous = images
        # Faces and sharpness of each generator, and identity between them.
        faces = [[embed(image) for image in side] for side in rendered]
        distances["identity"] += map(identity_or_unlike, *faces)
        for k in range(2):
            sharp[k].extend(map(sharpness, rendered[k]))
            detected[k].extend(face is not None for face in faces[k])
            _add(embeddings[k], faces[k])
        if len(sheet_faces) < SHEET_FACES:
            sheet_faces += list(np.stack(rendered, axis=1))
    for w_NLD in _codes(cut, config.check.seed + 1, psi, count, "uncut generator, other samples"):
        _add(floor, [embed(image) for image in to_uint8(render_codes(uncut, w_NLD, SIZE))])
    save_image(sheet, _sheet(sheet_faces))
    return {
        "samples": count,
        "st_lpips_alex": mean(distances["alex"]),
        "st_lpips_vgg": mean(distances["vgg"]),
        "identity_median": median(distances["identity"]),
        "detection_rate": mean(detected[1]),
        "detection_rate_teacher": mean(detected[0]),  # of the uncut generator
        "diversity": round(float(np.mean(spread[1]) / np.mean(spread[0])), 4),
        "sharpness": round(float(np.mean(sharp[1]) / np.mean(sharp[0])), 4),
        "frechet_dlib": round(_frechet(*embeddings), 5),
        "frechet_dlib_floor": round(_frechet(embeddings[0], floor), 5),
    }


def _add(gaussian: Gaussian, faces: list[np.ndarray | None]) -> None:
    for face in faces:
        if face is not None:
            gaussian.update(face[None])


def _frechet(a: Gaussian, b: Gaussian) -> float:
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def _sheet(pairs: list[np.ndarray]) -> np.ndarray:
    """Pairs (2, H, W, 3) in rows of SHEET_COLUMNS, the first of each pair above the second; an incomplete last row is
    dropped.
    """
    complete = np.stack(pairs[: len(pairs) // SHEET_COLUMNS * SHEET_COLUMNS])
    rows = complete.reshape(-1, SHEET_COLUMNS, 2, SIZE, SIZE, 3).transpose(0, 2, 3, 1, 4, 5)
    return rows.reshape(-1, SHEET_COLUMNS * SIZE, 3)


def encoder_on_samples(
    encoder: torch.nn.Module, generator: Generator, config: Config, detector: FaceDetector
) -> dict[str, Any]:
    """Encodes samples of the generator (psi 0.7) and renders the codes.

    jitter = sqrt(mean_l var_t w_tl) / sqrt(mean_l var_n w_nl): the codes of noisy copies t of one image, relative to
    the codes of different people n. 0: the codes do not vary; 1: they vary as much as between people.
    """
    device = generator.w_avg.device
    embed, alex = FaceEmbedder(detector), load_perceptual("alex").to(device)
    distances: dict[str, list[float]] = {"alex": [], "identity": []}
    codes: list[Tensor] = []
    seconds, still = 0.0, torch.empty(0)
    for w_NLD in _codes(generator, config.check.seed, 0.7, config.check.reconstructions, "encoder"):
        true = to_uint8(render_codes(generator, w_NLD, SIZE))
        images = to_tensor(true, device)
        still = still if codes else images[:1]
        with torch.inference_mode():
            started = time.perf_counter()
            codes.append(encoder(images))
            seconds += time.perf_counter() - started
            decoded = to_uint8(render_codes(generator, codes[-1], SIZE))
            distances["alex"] += alex(to_tensor(decoded, device), images).tolist()
        distances["identity"] += map(identity_or_unlike, map(embed, decoded), map(embed, true))
    rng = np.random.default_rng(config.check.seed)
    noise = rng.normal(0, NOISE / 127.5, (STILL_FRAMES, *still.shape[1:])).astype(np.float32)
    with torch.inference_mode():
        repeats = encoder((still + torch.from_numpy(noise).to(device)).clamp(-1, 1))
    people = torch.cat(codes)
    return {
        "samples": len(people),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "st_lpips_alex": mean(distances["alex"]),
        "identity_median": median(distances["identity"]),
        "jitter": round(float((repeats.var(0).mean() / people.var(0).mean()).sqrt()), 4),
        "frames_per_s": round(len(people) / seconds, 1),
        "threads": torch.get_num_threads(),
    }


def encoder_on_clips(
    encoder: torch.nn.Module, generator: Generator, config: Config, run: Run, detector: FaceDetector
) -> dict[str, Any]:
    """Identity distance of reconstructed frames of every clip in data.root, without and with refinement."""
    embed, prepared = FaceEmbedder(detector), prepare_data(config, run).folder
    distance, settings = load_perceptual("alex").to(run.device), InversionConfig()
    result: dict[str, Any] = {}
    for entry in track(read_manifest(prepared).ok(), "clips", transient=True):
        clip = FrameClip.load(prepared / entry.file)
        chosen = np.linspace(0, len(clip) - 1, config.check.frames + 2).round().astype(int)[1:-1]
        true = clip.frames[chosen]
        images = to_tensor(true, run.device)
        w_NLD = start_codes(images, encoder, generator, settings)
        refined = w_NLD + refine(w_NLD, images, generator, distance, settings, REFINING)
        faces = [embed(frame) for frame in true]
        result[entry.name] = {}
        for name, w in (("identity_encoder", w_NLD), (f"identity_{REFINING}_steps", refined)):
            decoded = to_uint8(render_codes(generator, w, SIZE))
            result[entry.name][name] = mean([*map(identity_or_unlike, map(embed, decoded), faces)])
    return result
