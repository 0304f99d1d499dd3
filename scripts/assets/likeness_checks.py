"""Measurements of check_assets.py on the likeness of single photos: encoder, person offset and tuned generator.

The people are samples of the embedded generator, whose codes are known, photographed as by a poor camera. Each is scored on
another picture of the same person, with turned head and open mouth: the figures say how well the identity carries over, which
the fitted photo does not show. L rows of W+, D = 512.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from rich.progress import track

from configs.schema import Config
from encoders.bases.viseme_basis import VisemeBasis
from encoders.features.identity import DlibIdentity, identity_distance
from encoders.features.sface import SFaceIdentity
from encoders.footage.faces import FaceDetector, face_in_crop
from metrics.report.plots import save_image
from scripts.assets.face_checks import UNLIKE, mean
from scripts.core.networks import build_likeness, build_teacher
from scripts.core.runtime import Run
from scripts.stages.identity_frames import Portrait
from scripts.stages.invert_frames import Inverter
from stylegan2.protocol import sample_w
from stylegan2.render import render
from tuning.pivotal import tune

ANOTHER = {"open": 0.8, "wide": 0.3, "yaw": 0.5}  # the scored picture, in units of the viseme basis


def likeness(
    config: Config, run: Run, generator: Any, basis: VisemeBasis, detector: FaceDetector, sheet: Path
) -> dict[str, Any]:
    """Mean dlib distance and SFace similarity to the true other picture, of check.faces people. sheet: a picture; its rows are
    photo, true other picture, encoder, offset, tuned.
    """
    inverter, teacher = Inverter(config, run), build_teacher(config, run)
    networks, dlib, sface = build_likeness(teacher, run), DlibIdentity(), SFaceIdentity()
    weights = np.array([[ANOTHER.get(name, 0.0) for name in basis.names]], np.float32)
    d_LD = basis.displacement(weights)[0]
    figures: dict[str, list[float]] = {}
    columns: list[np.ndarray] = []
    rng = np.random.default_rng(config.check.seed)
    people = sample_w(generator, config.check.faces, config.check.seed, 0.7).cpu().numpy()
    for w_LD in track(people, "likeness", transient=True):
        true, other = render(generator, np.stack([w_LD, w_LD + d_LD]))
        photo = photographed(true, rng)
        face, known = face_in_crop(detector, photo), face_in_crop(detector, other)
        if face is None or known is None:
            continue
        portrait = Portrait(photo[None], face.landmarks[None])
        plain_LD, offset_LD = inverter(photo[None])[0], inverter.fitted_offset(portrait)
        fitted = inverter(photo[None], offset_LD)
        tuned = tune(
            generator, fitted, photo[None], portrait.landmarks, teacher, config.tuning, networks, False
        )
        shown = {
            "encoder": next(render(generator, (plain_LD + d_LD)[None])),
            "offset": next(render(generator, fitted + d_LD)),
            "tuned": next(render(tuned.generator, fitted + d_LD)),
        }
        true_dlib, true_sface = (judge.embed(other, known.landmarks) for judge in (dlib, sface))
        for name, image in shown.items():
            distance, similar = UNLIKE, 0.0
            if (found := face_in_crop(detector, image)) is not None:
                distance = identity_distance(dlib.embed(image, found.landmarks), true_dlib)
                similar = float(sface.embed(image, found.landmarks) @ true_sface)
            figures.setdefault(f"{name}_identity", []).append(distance)
            figures.setdefault(f"{name}_sface", []).append(similar)
        columns.append(np.concatenate([photo, other, *shown.values()]))
    save_image(sheet, np.concatenate(columns, axis=1))
    return {"people": len(columns)} | {name: mean(values) for name, values in figures.items()}


def photographed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image as a poor camera would deliver it, uint8: out of focus, of half the resolution, with another white balance,
    exposure and noise, and compressed.
    """
    height, width = image.shape[:2]
    small = Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.8)).resize((width // 2, height // 2))
    soft = np.asarray(small.resize((width, height)), np.float32) / 255
    balance = rng.uniform(0.9, 1.1, 3)
    noisy = soft ** rng.uniform(0.8, 1.25) * balance + rng.normal(0, 0.015, soft.shape)
    buffer = BytesIO()
    Image.fromarray((noisy.clip(0, 1) * 255).astype(np.uint8)).save(buffer, "JPEG", quality=50)
    return np.array(Image.open(buffer))
