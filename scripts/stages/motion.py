"""The motion of head and eyelids for a generated video, as `motion` asks for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from audio.waveform import Waveform
from configs.schema import Config
from encoders.bases.viseme_basis import load_viseme_basis
from encoders.footage.prepare import track_face
from scripts.core.networks import build_detector
from scripts.core.runtime import Run, RunError
from trajectory.motion.apply import latent_blinks, latent_motion
from trajectory.motion.natural_motion import load_natural_motion
from trajectory.motion.tracks import MotionTrack, track_of_landmarks


def check_motion(config: Config) -> None:
    """Raises RunError if motion=clip lacks its video, or could not be shown."""
    path = config.motion.clip or config.clip
    if config.motion.kind != "clip":
        return
    if config.compose != "crop":
        raise RunError(
            f"compose={config.compose} keeps the head as it is in the picture: set compose=crop, or leave out motion=clip."
        )
    if path is None:
        raise RunError(
            "motion=clip takes the motion from a video: give motion.clip=FILE, or a face by clip=FILE."
        )
    if not Path(path).is_file():
        raise RunError(
            f"There is no video at {path}, from which motion=clip takes the motion: check the path."
        )


def motion_track(config: Config, run: Run, speech: Waveform, frames: int) -> MotionTrack:
    """The track of `frames` frames; at rest for compose=frame and photo, which keep the head as it is in the picture.

    Raises VideoError or FaceError for a video without a usable face.
    """
    motion = config.motion
    if motion.kind == "none" or config.compose != "crop":
        return MotionTrack.at_rest(frames)
    if motion.kind == "natural":
        track = load_natural_motion().draw(speech, frames, motion.seed)
    else:
        path = str(motion.clip or config.clip)
        detector = build_detector(config.data, str(run.device))
        track = track_of_landmarks(*track_face(path, detector, config.prepare)).forth_and_back(frames)
    pose = track.pose * (motion.gain if motion.head else 0)
    lids = track.lids * (1 if motion.blink else 0)
    return replace(track, pose=pose.astype(np.float32), lids=lids.astype(np.float32))


def latent_motion_of(config: Config, run: Run, track: MotionTrack) -> tuple[np.ndarray, np.ndarray]:
    """Displacements of W+ by the head and by the lids, (T, L, D) each; (T, 1, 1) of zeros for generators in whose W+ the axes
    are not known.
    """
    if config.generator.weights == "embedded":
        basis = load_viseme_basis()
        return latent_motion(track, basis), latent_blinks(track, basis)
    if track.lids.any() or track.pose.any():
        run.say(
            "The head shifts and rolls, but neither turns nor nods, and the eyes do not blink: the axes for that are "
            "known only for generator.weights=embedded."
        )
    none = np.zeros((len(track), 1, 1), np.float32)
    return none, none
