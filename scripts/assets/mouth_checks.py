"""Measurements of check_assets.py on moving mouths: the viseme basis and all faces of the synthetic corpus.

Everything is measured by dlib on rendered frames. Shapes: N people, K shapes of the face, T frames, A = len(AXES);
landmarks (..., 68, 2) px of the 256 px crop. Lengths marked iod are relative to the inter-ocular distance.
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
from trajectory.synthetic_corpus.coarticulation import VISEMES, viseme_weights
from trajectory.synthetic_corpus.sentences import SentenceSource
from trajectory.synthetic_corpus.speakers import FACE_SEEDS, Speaker, draw_speakers, face_latent

STILL = [*range(17, 48)]  # landmarks of brows, nose and eyes, which speech does not move
STILL_IN_A_BLINK = [*range(17, 36)]
SHEET_PEOPLE = 6
EVERY = 2  # every second frame of a sentence is measured


def landmarks_of(frames: Iterable[np.ndarray], detector: FaceDetector) -> np.ndarray:
    """(T, 68, 2), nan where no face is found."""
    faces = [face_in_crop(detector, frame) for frame in frames]
    return np.stack([np.full((68, 2), np.nan) if face is None else face.landmarks for face in faces])


def sharpness(frame: np.ndarray) -> float:
    """Variance of the Laplacian of the grey levels of uint8 (H, W, 3)."""
    grey = torch.from_numpy(frame).float().mean(-1)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var())


def intended_aperture(weights_TA: np.ndarray) -> np.ndarray:
    """Opening of the inner lips (iod) according to the axes' targets: weights (T, len(FITTED)) -> (T,)."""
    targets = axis_targets().numpy()
    return weights_TA @ (targets[:, LIP_LOWER, 1] - targets[:, LIP_UPPER, 1])


def visemes(
    config: Config, generator: Generator, basis: VisemeBasis, detector: FaceDetector, sheet: Path
) -> dict[str, Any]:
    """Measures every viseme, and every axis at full amplitude, on people (psi 0.7) who were not used in the fit.

    aperture, width (iod), yaw, pitch, blink (see encoders/bases/attribute_regression.py): mean change, and its ratio to
    the target where there is one. outside_px: mean movement of brows, nose and eyes (blink: brows and nose; not for the
    head's axes, which move all). identity: median dlib distance to the neutral face. Writes a sheet of the first
    people: the neutral face, then the shapes in the order of the result.
    """
    identity = DlibIdentity()
    codes = sample_w(generator, config.check.people, config.check.seed, 0.7)
    shapes = {name: viseme_weights(name) for name in VISEMES}  # the first is the neutral face
    shapes |= dict(zip(AXES, np.eye(len(AXES), dtype=np.float32), strict=True))
    weights_KA = np.stack(list(shapes.values()))
    points = np.full((len(codes), len(shapes), 68, 2), np.nan)
    distance = np.full((len(codes), len(shapes)), np.nan)
    rows = []
    # Render and measure every shape of every person.
    for n, w_LD in enumerate(track(codes, "visemes", transient=True)):
        frames = list(render(generator, w_LD.cpu().numpy() + basis.displacement(weights_KA)))
        points[n] = landmarks_of(frames, detector)
        detected = np.flatnonzero(np.isfinite(points[n, :, 0, 0])).tolist()
        embeddings = {k: identity.embed(frames[k], points[n, k]) for k in detected}
        if 0 in embeddings:
            for k, embedding in embeddings.items():
                distance[n, k] = identity_distance(embedding, embeddings[0])
        if n < SHEET_PEOPLE:
            rows.append(np.concatenate(frames, axis=1))
    save_image(sheet, np.concatenate(rows))
    # Compare the change of each measure with the targets.
    change = {name: measure(points) - measure(points[:, :1]) for name, measure in MEASURES.items()}
    targets = _target_changes(weights_KA)
    result: dict[str, Any] = {"people": len(codes), "detected": round(float(np.mean(~np.isnan(distance))), 4)}
    for k, name in list(enumerate(shapes))[1:]:
        record = {}
        for measure, value in change.items():
            moved, target = float(np.nanmean(value[:, k])), float(targets[measure][k])
            record[measure] = round(moved, 4)
            if abs(target) > 0.02:
                record[f"{measure}_reach"] = round(moved / target, 3)
        if name not in HEAD_AXES:
            still = STILL_IN_A_BLINK if name == "blink" else STILL
            outside = np.linalg.norm(points[:, k, still] - points[:, 0, still], axis=-1)
            record["outside_px"] = round(float(np.nanmean(outside)), 3)
        record["identity"] = round(float(np.nanmedian(distance[:, k])), 4)
        result[name] = record
    return result


def _target_changes(weights_KA: np.ndarray) -> dict[str, np.ndarray]:
    """Change of each measure according to the axes' targets, (K,)."""
    targets = axis_targets().numpy()
    fitted = weights_KA[:, [AXES.index(name) for name in FITTED]]
    width = fitted @ (targets[:, MOUTH_RIGHT, 0] - targets[:, MOUTH_LEFT, 0])
    turns = {axis: weights_KA[:, AXES.index(axis)] * reach for axis, reach in REACH.items()}
    return {"aperture": intended_aperture(fitted), "width": width} | turns


def corpus(
    config: Config, generator: Generator, basis: VisemeBasis, detector: FaceDetector
) -> dict[str, Any]:
    """Renders one sentence of each kind with every face of the corpus; `_speaking` lists the figures of one face."""
    source = SentenceSource(config.corpus.seed)
    people = draw_speakers(config.corpus.seed, len(FACE_SEEDS), 0)
    faces = [
        _speaking(config, person, source, generator, basis, detector)
        for person in track(people, "faces", transient=True)
    ]
    faces = sorted(faces, key=lambda record: record["aperture_corr"])

    def mean(figure: str, digits: int = 4) -> float:
        return round(float(np.mean([face[figure] for face in faces])), digits)

    return {
        "faces": len(faces),
        "detection_rate": mean("detection_rate"),
        "worst_aperture_corr": faces[0]["aperture_corr"],
        "least_aperture_std": min(face["aperture_std"] for face in faces),
        "mean_aperture_corr": mean("aperture_corr"),
        "mean_still_px": mean("still_px", 3),
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
    """Figures of one speaking face, whose first frame is at rest."""
    face_LD = face_latent(generator, person, config.corpus.psi)
    performances = [
        perform(config.corpus, person, source.draw("train", kind), "train") for kind in ("grid", "free")
    ]
    weights = np.concatenate(
        [np.zeros((1, len(AXES)), np.float32), *(p.weights[::EVERY] for p in performances)]
    )
    frames = list(render(generator, (face_LD + basis.displacement(weights)).astype(np.float32)))
    points = landmarks_of(frames, detector)
    detected = ~np.isnan(points[:, 0, 0])
    intended = intended_aperture(weights[:, [AXES.index(name) for name in FITTED]])
    opening, still = aperture(points), points[detected][:, STILL]
    return {
        "face": person.face,
        "sex": person.sex,
        "frames": len(weights),
        "detection_rate": round(float(detected.mean()), 4),
        "aperture_corr": round(correlation(opening[detected], intended[detected]), 4),
        "aperture_rest": round(float(opening[0]), 4),  # iod
        "aperture_std": round(float(opening[detected].std()), 4),  # iod
        "still_px": round(float(np.linalg.norm(still - still.mean(0), axis=-1).mean()), 3),  # about the mean
        "turned": round(abs(float(yaw(points[0]))), 3),  # of the face at rest, iod
        "sharpness": round(sharpness(frames[0]), 1),
    }
