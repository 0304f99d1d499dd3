"""The data for adapting stage 1 to one person: speech, W+ codes and lip opening of the frames that may be used.

Shapes: U frames, J feature rows, K rows of a window, M bins, X = K M, L rows of W+, D = 512, C coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from audio.features import extract_features
from audio.timing import FPS, samples_of_frames
from audio.waveform import Waveform
from encoders.geometry import aperture, correlation
from encoders.records import FrameClip
from encoders.ridge_regression import cross_validated, left_out_predictions
from trajectory.adapt.lip_response import QUANTILES, LipResponse, RenderedOpening, lip_response
from trajectory.data.windows import rows_of
from trajectory.losses.lip_loss import fit_lip_axis
from trajectory.model.displacement import DisplacementSpace, TrajectoryError
from trajectory.model.predictor import TrajectoryPredictor

if TYPE_CHECKING:
    from sklearn.linear_model import Ridge

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the regression in the adapted model
LEAST_SECONDS = 2.0  # seconds of speech with a detected face


@dataclass(frozen=True)
class PersonalSpeech:
    """A person's speech and face in the U frames of a clip that may be used for adaptation.

    sound: of these frames. w (U, L, D) float32: their codes; w_ref (L, D): the identity latent. opening (U,): the
    lips' aperture; known (U,) bool: where landmarks were found.
    """

    sound: Waveform
    w: np.ndarray
    w_ref: np.ndarray
    opening: np.ndarray
    known: np.ndarray

    def until(self, frames: int) -> PersonalSpeech:
        """The first `frames` frames."""
        cut = {name: getattr(self, name)[:frames] for name in ("w", "opening", "known")}
        return replace(self, sound=Waveform(self.sound.samples[: samples_of_frames(frames)]), **cut)


def personal_speech(clip: FrameClip, w_TLD: np.ndarray, used: int, w_ref_LD: np.ndarray) -> PersonalSpeech:
    """The first `used` frames of a clip. Later frames and their sound are not used, because they are scored."""
    return PersonalSpeech(
        sound=Waveform(np.asarray(clip.waveform)[: samples_of_frames(used)]),
        w=np.asarray(w_TLD[:used], np.float32),
        w_ref=np.asarray(w_ref_LD, np.float32),
        opening=aperture(np.asarray(clip.landmarks)[:used]),
        known=np.asarray(clip.detected, bool)[:used],
    )


def require_enough_speech(speech: PersonalSpeech) -> None:
    """Raises TrajectoryError for less than LEAST_SECONDS of frames with a face."""
    if (known := int(speech.known.sum())) < LEAST_SECONDS * FPS:
        raise TrajectoryError(
            f"{known} frames ({known / FPS:.1f} s) of speech with a face are too few for adapting stage 1, which needs "
            f"{LEAST_SECONDS * FPS:.0f}: give a longer clip, raise target.share, or set adapt=none."
        )


class AdaptationData:
    """A person's speech in the features and coefficients of a stage-1 model.

    x (U, K, M): windows; rows (J, M): the same features, without the overlap of windows; d (U, L, D), c (U, C):
    displacements and coefficients. Of the frames with landmarks: axis (C,), l of the equation in
    personal_adaptation.py, reads the lips' opening; direction (C,), v, is how coefficients change with it; mean (C,),
    m; opening: the lips' aperture.
    """

    def __init__(self, base: TrajectoryPredictor, speech: PersonalSpeech) -> None:
        features = extract_features(speech.sound, base.features, len(speech.w))
        self.x, self.rows, self.known = features.values, rows_of(features, base.features), speech.known
        self.w_ref = torch.from_numpy(speech.w_ref)[None].to(base.gain.device)
        self.d = torch.from_numpy(speech.w).to(base.gain.device) - self.w_ref
        self.c = base.space.encode(self.d).double().cpu().numpy()
        known_UC, opening_U = self.c[speech.known], speech.opening[speech.known]
        self.opening = opening_U
        self.axis = fit_lip_axis([(known_UC, opening_U)])
        self.mean = known_UC.mean(axis=0)
        o_U = opening_U - opening_U.mean()
        self.direction = (known_UC - self.mean).T @ o_U / max(float(o_U @ o_U), 1e-12)

    def coefficients(self, o_T: np.ndarray, gain: float = 1.0, shift: float = 0.0) -> np.ndarray:
        """c = m + v (g o + δ), (T, C), of openings from which their mean is subtracted."""
        return self.mean + (gain * o_T + shift)[:, None] * self.direction

    def response(self, rendered_opening: RenderedOpening, space: DisplacementSpace) -> LipResponse:
        """How the frames of the generator behind `rendered_opening` show the lips' opening of this person's codes."""
        mean = float(self.opening.mean())
        o_K = np.percentile(self.opening, QUANTILES)
        c_KC = torch.from_numpy(self.coefficients(o_K - mean)).to(self.w_ref)
        w_KLD = (self.w_ref + space.decode(c_KC)).cpu().numpy()
        return lip_response(o_K, rendered_opening(w_KLD), mean)

    @cached_property
    def regression(self) -> Ridge:
        """Ridge regression s, b from windows to o, on the frames with landmarks."""
        return cross_validated(flat_windows(self.x)[self.known], self.opening_of(self.c)[self.known])

    def share(self, predicted_UC: np.ndarray) -> float:
        """The share of the regression, of SHARES, with which its mixture with a model's coefficients correlates best with
        the true opening. The regression predicts frames that it was not fitted to.
        """
        true_T = self.opening_of(self.c)[self.known]
        model_T = self.opening_of(predicted_UC)[self.known]
        regression_T = left_out_predictions(flat_windows(self.x)[self.known], true_T)
        return max(SHARES, key=lambda a: correlation((1 - a) * model_T + a * regression_T, true_T))

    def opening_of(self, c_TC: np.ndarray) -> np.ndarray:
        """The lips' opening (T,) in coefficients."""
        return c_TC @ self.axis


def flat_windows(x_TKM: np.ndarray) -> np.ndarray:
    """Windows as vectors, (T, X) float64."""
    return x_TKM.reshape(len(x_TKM), -1).astype(np.float64)
