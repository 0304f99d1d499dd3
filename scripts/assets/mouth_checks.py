"""What check_assets.py measures on moving mouths: the viseme basis, and the faces that the corpus may draw.

Everything is measured by dlib on rendered frames. Shapes: N people, T frames, A articulatory axes, L rows of W+;
landmarks (..., 68, 2) px of the 256 px crop. Lengths marked iod are over the inter-ocular distance.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from configs.schema import Config
from encoders.bases.attribute_regression import MEASURES, REACH, yaw
from encoders.bases.viseme_basis import AXES, HEAD_AXES, VisemeBasis
from encoders.bases.viseme_targets import FITTED, axis_targets
from encoders.features.identity import DlibIdentity, identity_distance
from encoders.footage.faces import FaceDetector, face_in_crop
from encoders.geometry import LIP_LOWER, LIP_UPPER, MOUTH_LEFT, MOUTH_RIGHT, aperture, correlation
from metrics.report.plots import save_image
from stylegan2.protocol import Generator, sample_w
from stylegan2.render import render
from trajectory.synthetic_corpus.build_corpus import perform
from trajectory.synthetic_corpus.coarticulation import VISEMES, held
from trajectory.synthetic_corpus.sentences import SentenceSource
from trajectory.synthetic_corpus.speakers import FACE_SEEDS, Speaker, draw_speakers, face_latent

STILL = [*range(17, 48)]  # brows, nose and eyes: what speech does not move
SHEET_PEOPLE = 6
EVERY = 2  # frames of a sentence that are looked at


def visemes(
    config: Config, generator: Generator, basis: VisemeBasis, detector: FaceDetector, sheet: Path
) -> dict[str, Any]:
    """Every viseme, and every axis at full amplitude, on people whom the fit has not seen (psi 0.7).

    Writes a sheet of the first people, the shapes in the order of the result (behind the face at rest).

    aperture, width (iod), yaw, pitch, blink (of encoders/bases/attribute_regression.py): mean change, and its share of the target
    where the axis has one. outside_px: mean movement of brows, nose and eyes (blink: of brows and nose; the head's
    axes move all). identity: median dlib distance to the neutral face.
    """
    identity = DlibIdentity()
    codes = sample_w(generator, config.check.people, config.check.seed, 0.7)
    places = [AXES.index(name) for name in basis.names]
    shapes = {name: held(name)[places] for name in VISEMES} | dict(
        zip(basis.names, np.eye(len(basis.names), dtype=np.float32), strict=True)
    )
    weights_KV = np.stack(list(shapes.values()))  # the first is the face at rest
    points = np.full((len(codes), len(shapes), 68, 2), np.nan)
    likeness = np.full((len(codes), len(shapes)), np.nan)
    rows = []
    for n, w_LD in enumerate(track(codes, "visemes", transient=True)):
        frames = list(render(generator, w_LD.cpu().numpy() + basis.displacement(weights_KV)))
        if n < SHEET_PEOPLE:
            rows.append(np.concatenate(frames, axis=1))
        neutral = None
        for k, frame in enumerate(frames):
            if (face := face_in_crop(detector, frame)) is None:
                continue
            points[n, k], mine = face.landmarks, identity.embed(frame, face.landmarks)
            neutral = mine if k == 0 else neutral
            likeness[n, k] = np.nan if neutral is None else identity_distance(mine, neutral)
    save_image(sheet, np.concatenate(rows))
    change = {name: measure(points) for name, measure in MEASURES.items()}
    wanted = _wanted(weights_KV, basis.names)
    found: dict[str, Any] = {"people": len(codes), "detected": round(float(np.mean(~np.isnan(likeness))), 4)}
    for k, name in list(enumerate(shapes))[1:]:
        record = {}
        for measure, value in change.items():
            moved, target = float(np.nanmean(value[:, k] - value[:, 0])), float(wanted[measure][k])
            record[measure] = round(moved, 4)
            if abs(target) > 0.02:
                record[f"{measure}_reach"] = round(moved / target, 3)
        if name not in HEAD_AXES:
            still = [*range(17, 36)] if name == "blink" else STILL
            outside = np.linalg.norm(points[:, k, still] - points[:, 0, still], axis=-1)
            record["outside_px"] = round(float(np.nanmean(outside)), 3)
        record["identity"] = round(float(np.nanmedian(likeness[:, k])), 4)
        found[name] = record
    return found


def _wanted(weights_KV: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What K shapes should change of each measure, (K,), by the targets of the axes."""
    targets = axis_targets().numpy()
    fitted = np.stack(
        [weights_KV[:, names.index(name)] if name in names else 0 * weights_KV[:, 0] for name in FITTED], 1
    )
    wanted = {
        "aperture": intended_aperture(fitted),
        "width": fitted @ (targets[:, MOUTH_RIGHT, 0] - targets[:, MOUTH_LEFT, 0]),
    }
    for axis, reach in REACH.items():
        wanted[axis] = weights_KV[:, names.index(axis)] * reach if axis in names else 0 * weights_KV[:, 0]
    return wanted


def intended_aperture(weights_TA: np.ndarray) -> np.ndarray:
    """How far the axes' targets part the inner lips, iod: (T, A) over FITTED -> (T,), relative to the face at rest."""
    targets = axis_targets().numpy()
    return weights_TA @ (targets[:, LIP_LOWER, 1] - targets[:, LIP_UPPER, 1])


def corpus(
    config: Config, generator: Generator, basis: VisemeBasis, detector: FaceDetector
) -> dict[str, Any]:
    """Every face that the corpus may draw says a sentence of either kind.

    For each: share of frames with a detected face; correlation of measured with intended aperture; aperture at rest
    and its standard deviation in speech, iod; movement of brows, nose and eyes about their mean, px; turned: the
    nose's distance from the middle between the eyes, iod; sharpness (variance of the Laplacian of grey levels).
    """
    source = SentenceSource(config.corpus.seed)
    people = draw_speakers(config.corpus.seed, len(FACE_SEEDS), 0)
    faces = [
        _speaking(config, person, source, generator, basis, detector)
        for person in track(people, "faces", transient=True)
    ]
    faces = sorted(faces, key=lambda record: record["aperture_corr"])
    return {
        "faces": len(faces),
        "detection_rate": round(float(np.mean([face["detection_rate"] for face in faces])), 4),
        "worst_aperture_corr": faces[0]["aperture_corr"],
        "least_aperture_std": min(face["aperture_std"] for face in faces),
        "mean_aperture_corr": round(float(np.mean([face["aperture_corr"] for face in faces])), 4),
        "mean_still_px": round(float(np.mean([face["still_px"] for face in faces])), 3),
        "each": faces,
    }


def _speaking(
    config: Config,
    person: Speaker,
    source: SentenceSource,
    generator: Generator,
    basis: VisemeBasis,
    detector: FaceDetector,
) -> dict[str, Any]:
    face_LD = face_latent(generator, person, config.corpus.psi)
    said = [perform(config.corpus, person, source.draw("train", kind), "train") for kind in ("grid", "free")]
    weights = np.concatenate([np.zeros((1, len(AXES)), np.float32), *(p.weights[::EVERY] for p in said)])
    weights_TV = weights[:, [AXES.index(name) for name in basis.names]]
    frames = render(generator, (face_LD + basis.displacement(weights_TV)).astype(np.float32))
    points, sharp = _measured(frames, detector)
    found = ~np.isnan(points[:, 0, 0])
    intended = intended_aperture(weights[:, [AXES.index(name) for name in FITTED]])
    opening = aperture(points)
    still = points[found][:, STILL]
    return {
        "face": person.face,
        "sex": person.sex,
        "frames": len(weights),
        "detection_rate": round(float(found.mean()), 4),
        "aperture_corr": round(correlation(opening[found], intended[found]), 4),
        "aperture_rest": round(float(opening[0]), 4),
        "aperture_std": round(float(opening[found].std()), 4),
        "still_px": round(float(np.linalg.norm(still - still.mean(0), axis=-1).mean()), 3),
        "turned": round(abs(float(yaw(points[0]))), 3),
        "sharpness": round(sharp, 1),
    }


def _measured(frames: Iterable[np.ndarray], detector: FaceDetector) -> tuple[np.ndarray, float]:
    """Landmarks (T, 68, 2), nan where no face is found, and the first frame's sharpness."""
    points, sharp = [], float("nan")
    for t, frame in enumerate(frames):
        face = face_in_crop(detector, frame)
        points.append(np.full((68, 2), np.nan) if face is None else face.landmarks)
        sharp = sharpness(frame) if t == 0 else sharp
    return np.stack(points), sharp


def sharpness(frame: np.ndarray) -> float:
    """Variance of the Laplacian of the grey levels, uint8 (H, W, 3)."""
    grey = torch.from_numpy(frame).float().mean(-1)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var())
