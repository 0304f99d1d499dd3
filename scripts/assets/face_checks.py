"""What check_assets.py measures on still faces: the embedded generator against its teacher, and the encoder.

Codes are held out by their seed. Distances are those of two uint8 images at 256 px; identity is dlib's distance, a
face that is not found counts as 1 (unlike). Shapes: N images, L rows of W+, D = 512.
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
from encoders.invert import InversionConfig, Judges, refine, start_codes
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

SIZE, CHUNK = 256, 4
SHEET_FACES = 32
UNLIKE = 1.0  # identity distance of a face that is not found
REFINING = 100  # steps, for the refined codes of photographs
# Of the jitter: repeats of one face with grain of this standard deviation, grey levels.
STILL_FRAMES, NOISE = 16, 2.0


class Looks:
    """Detection and identity of images, one at a time."""

    def __init__(self, detector: FaceDetector) -> None:
        self.detector, self.identity = detector, DlibIdentity()

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """uint8 (256, 256, 3) -> embedding (128,), None without a face."""
        face = face_in_crop(self.detector, image)
        return None if face is None else self.identity.embed(image, face.landmarks)


def apart(a: np.ndarray | None, b: np.ndarray | None) -> float:
    return UNLIKE if a is None or b is None else identity_distance(a, b)


# --------------------------------------------------------------------------------------------------- generator


def generator_against(
    teacher: Generator, student: Generator, psi: float, config: Config, detector: FaceDetector, sheet: Path
) -> dict[str, Any]:
    """The student beside the teacher on the same codes; both Fréchet distances are over dlib's embeddings.

    Writes a sheet of the first SHEET_FACES, the teacher's above the student's.

    diversity: mean ST-LPIPS alex between neighbours in the list, over the teacher's. frechet_floor: of a second
    sample of the teacher.
    """
    looks, count, device = Looks(detector), config.check.samples, student.w_avg.device
    nets = {name: load_perceptual(name).to(device) for name in ("alex", "vgg")}
    columns: dict[str, list[float]] = {}
    found = {"teacher": Gaussian(), "student": Gaussian(), "again": Gaussian()}
    before: tuple[Tensor, Tensor] | None = None
    bands: list[np.ndarray] = []  # CHUNK faces of each
    for w_NLD in _codes(student, config.check.seed, psi, count, f"generator, psi {psi}"):
        pair = tuple(to_uint8(render_codes(net, w_NLD, SIZE)) for net in (teacher, student))
        images = tuple(to_tensor(image, device) for image in pair)
        if len(bands) * CHUNK < SHEET_FACES:
            bands.append(np.concatenate([np.concatenate(list(side), axis=1) for side in pair]))
        with torch.inference_mode():
            for name, net in nets.items():
                columns.setdefault(name, []).extend(net(*images).tolist())
            if before is not None:
                for who, old, new in zip(("teacher", "student"), before, images, strict=True):
                    columns.setdefault(f"spread_{who}", []).extend(nets["alex"](old, new).tolist())
        before = images  # type: ignore[assignment]
        for theirs, ours in zip(*pair, strict=True):
            faces = looks(theirs), looks(ours)
            columns.setdefault("identity", []).append(apart(*faces))
            for who, image, face in zip(("teacher", "student"), (theirs, ours), faces, strict=True):
                columns.setdefault(f"sharp_{who}", []).append(sharpness(image))
                columns.setdefault(f"seen_{who}", []).append(face is not None)
                if face is not None:
                    found[who].update(face[None])
    sides = bands[: len(bands) // 2 * 2 : 2], bands[1::2]
    save_image(sheet, np.concatenate([np.concatenate(side) for side in sides], axis=1))
    for w_NLD in _codes(student, config.check.seed + 1, psi, count, "teacher again"):
        for image in to_uint8(render_codes(teacher, w_NLD, SIZE)):
            if (face := looks(image)) is not None:
                found["again"].update(face[None])
    mean = {name: float(np.mean(values)) for name, values in columns.items()}
    distance = {
        who: frechet_distance(
            found["teacher"].mean, found["teacher"].covariance, other.mean, other.covariance
        )
        for who, other in found.items()
    }
    return {
        "samples": count,
        "st_lpips_alex": round(mean["alex"], 4),
        "st_lpips_vgg": round(mean["vgg"], 4),
        "identity_median": round(float(np.median(columns["identity"])), 4),
        "detection_rate": round(mean["seen_student"], 4),
        "detection_rate_teacher": round(mean["seen_teacher"], 4),
        "diversity": round(mean["spread_student"] / mean["spread_teacher"], 4),
        "sharpness": round(mean["sharp_student"] / mean["sharp_teacher"], 4),
        "frechet_dlib": round(distance["student"], 5),
        "frechet_dlib_floor": round(distance["again"], 5),
    }


def _codes(generator: Generator, seed: int, psi: float, count: int, what: str) -> Iterator[Tensor]:
    """Codes in chunks, all of one size, so that neighbours can be compared."""
    w_NLD = sample_w(generator, count - count % CHUNK, seed, psi)
    yield from track(w_NLD.split(CHUNK), what, transient=True)


# ----------------------------------------------------------------------------------------------------- encoder


def encoder_on_samples(
    encoder: torch.nn.Module, generator: Generator, config: Config, detector: FaceDetector
) -> dict[str, Any]:
    """Samples (psi 0.7) encoded and rendered again; jitter: of a still face with grain, over the spread of people.

    jitter = sqrt(mean_l var_t w_tl) / sqrt(mean_l var_n w_nl): 0 is steady, 1 as different as another person.
    """
    device = generator.w_avg.device
    looks, alex = Looks(detector), load_perceptual("alex").to(device)
    columns: dict[str, list[float]] = {"alex": [], "identity": []}
    codes, seconds, rng = [], 0.0, np.random.default_rng(config.check.seed)
    still: Tensor | None = None
    for w_NLD in _codes(generator, config.check.seed, 0.7, config.check.reconstructions, "encoder"):
        true = to_uint8(render_codes(generator, w_NLD, SIZE))
        images = to_tensor(true, device)
        still = images[:1] if still is None else still
        with torch.inference_mode():
            started = time.perf_counter()
            mine = encoder(images)
            seconds += time.perf_counter() - started
            made = to_uint8(render_codes(generator, mine, SIZE))
            columns["alex"] += alex(to_tensor(made, device), images).tolist()
        codes.append(mine)
        columns["identity"] += [apart(looks(a), looks(b)) for a, b in zip(made, true, strict=True)]
    assert still is not None
    grain = torch.from_numpy(
        rng.normal(0, NOISE / 127.5, (STILL_FRAMES, *still.shape[1:])).astype(np.float32)
    ).to(device)
    with torch.inference_mode():
        repeats = encoder((still + grain).clamp(-1, 1))
    people = torch.cat(codes)
    return {
        "samples": len(people),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "st_lpips_alex": round(float(np.mean(columns["alex"])), 4),
        "identity_median": round(float(np.median(columns["identity"])), 4),
        "jitter": round(float((repeats.var(0).mean() / people.var(0).mean()).sqrt()), 4),
        "frames_per_s": round(len(people) / seconds, 1),
        "threads": torch.get_num_threads(),
    }


def encoder_on_clips(
    encoder: torch.nn.Module, generator: Generator, config: Config, run: Run, detector: FaceDetector
) -> dict[str, Any]:
    """`check.frames` frames of every clip in data.root: identity of the reconstruction, encoder only and refined."""
    looks = Looks(detector)
    prepared = prepare_data(config, run)
    judges = Judges(load_perceptual("alex").to(run.device))
    settings = InversionConfig()
    result: dict[str, Any] = {}
    for entry in track(read_manifest(prepared).ok(), "clips", transient=True):
        clip = FrameClip.load(prepared / entry.file)
        chosen = np.linspace(0, len(clip) - 1, config.check.frames + 2).round().astype(int)[1:-1]
        true = np.stack([np.asarray(clip.frames[t]) for t in chosen])
        images = to_tensor(true, run.device)
        w_NLD = start_codes(images, encoder, generator, settings)
        refined = w_NLD + refine(w_NLD, images, generator, judges, settings, REFINING)
        faces = [looks(frame) for frame in true]
        record = {}
        for name, w in (("identity_encoder", w_NLD), (f"identity_{REFINING}_steps", refined)):
            made = to_uint8(render_codes(generator, w, SIZE))
            distances = [apart(looks(image), face) for image, face in zip(made, faces, strict=True)]
            record[name] = round(float(np.mean(distances)), 4)
        result[entry.name] = record
    return result
