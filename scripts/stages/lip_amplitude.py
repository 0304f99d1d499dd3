"""How far the lips open in the frames that a person's generator renders, and stage 1 adjusted to it."""

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from configs.schema import Config
from encoders.footage.faces import FaceDetector, face_in_crop
from encoders.geometry import aperture
from metrics.scoring.score_clips import at_crop_size
from scripts.core.networks import build_detector
from scripts.core.runtime import Run
from scripts.stages.stage_results import Person
from stylegan2.render import render
from trajectory.adapt.face_amplitude import face_amplitude, with_amplitude
from trajectory.model.predictor import TrajectoryPredictor


def opening_in_frames(generator: Any, detector: FaceDetector, w_KLD: np.ndarray) -> np.ndarray:
    """The lips' aperture (K,) in the frames that the generator renders from codes (K, L, D); nan without a face."""
    return np.array([_opening(frame, detector) for frame in render(generator, w_KLD)])


def fitted_to_face(
    model: TrajectoryPredictor, person: Person, generator: Any, config: Config, run: Run
) -> tuple[TrajectoryPredictor, dict[str, float]]:
    """The model with the gain and shift of trajectory/adapt/face_amplitude.py, and both by name; a model adapted to the
    person has its own already and stays as it is.
    """
    if person.adapted is not None:
        return model, {}
    detector = build_detector(config.data, str(run.device))
    opening = _opening(person.face.neutral, detector)
    if not np.isfinite(opening):
        return model, {}
    amplitude = face_amplitude(
        model, person.face.w_ref, opening, partial(opening_in_frames, generator, detector)
    )
    run.say(f"lips: gain {amplitude.gain:.2f}, shift {amplitude.shift:+.3f} inter-ocular distances")
    return with_amplitude(model, amplitude), asdict(amplitude)


def _opening(frame: np.ndarray, detector: FaceDetector) -> float:
    face = face_in_crop(detector, at_crop_size(frame))
    return float("nan") if face is None else float(aperture(face.landmarks))
