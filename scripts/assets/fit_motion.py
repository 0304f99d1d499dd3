"""Makes the embedded model of natural motion (inputs and outputs: scripts/fit_motion.py)."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from audio.timing import FPS
from audio.waveform import Waveform
from configs.schema import Config
from encoders.footage.align import points_in_frame
from encoders.geometry import eye_openness
from encoders.records import FrameClip
from scripts.core.provenance import save_provenance, write_json
from scripts.core.runtime import Run, RunError, shown
from trajectory.motion.motion_fit import Observed, fit_motion, jitter_like, periodogram
from trajectory.motion.natural_motion import NaturalMotion, speech_activity
from trajectory.motion.tracks import JITTER_SIGMA, POSE_AXES, raw_pose

WINDOW = 3 * FPS  # frames; longer clips are cut
HELD_OUT = 4  # every fourth clip is left out of the fit
BANDS = ((0.3, 0.5), (0.5, 1.2), (1.2, 3.0), (3.0, 7.0))  # Hz
DRAWS = 4  # tracks that are drawn for each clip


class Window(NamedTuple):
    """3 s of a clip: its pose (T, P) with jitter, eye aspect ratio (T,), and sound."""

    pose: np.ndarray
    openness: np.ndarray
    speech: Waveform


def fit_motion_model(config: Config, run: Run) -> Path:
    if config.input is None or not Path(config.input).is_dir():
        raise RunError("Give input=FOLDER with clips that prepare_data.py has written (data/prepared-KEY).")
    files = sorted(Path(config.input).rglob("*.safetensors"))
    if len(files) < 2 * HELD_OUT:
        raise RunError(f"{config.input} holds {len(files)} clips; at least {2 * HELD_OUT} are needed.")
    fitted: list[Window] = []
    held: list[Window] = []
    for index, file in enumerate(track(files, "clips")):
        (fitted if index % HELD_OUT else held).extend(windows_of(FrameClip.load(file)))
    try:
        model, jitter_PJ = fit_motion(observed(fitted))
    except ValueError as error:
        raise RunError(
            f"The clips in {config.input} cannot be fitted: {error}; give more of them."
        ) from error
    figures = compare(model, jitter_PJ, held)
    folder = run.results / "motion"
    write_json(folder / "figures.json", figures)
    model.save(
        folder / "natural_motion.json",
        {
            "clips": len(files),
            "fitted_seconds": len(fitted) * WINDOW / FPS,
            "made_by": "scripts/fit_motion.py",
            "held_out": {name: figure["quartiles"] for name, figure in figures.items()},
        },
    )
    save_provenance(folder, config, seconds=run.seconds)
    inside = sum(low <= f["drawn"] <= high for f in figures.values() for low, high in [f["quartiles"]])
    run.say(f"{inside} of {len(figures)} medians lie within the quartiles of the clips left out")
    run.say(f"wrote {shown(folder)}")
    return folder


def windows_of(clip: FrameClip) -> list[Window]:
    pose = raw_pose(points_in_frame(clip.landmarks, clip.quads), clip.detected)
    openness, samples = eye_openness(clip.landmarks), clip.waveform.reshape(len(clip), -1)
    starts = range(0, len(clip) - WINDOW + 1, WINDOW)
    spans = [slice(start, start + WINDOW) for start in starts]
    return [Window(pose[s], openness[s], Waveform(samples[s].ravel())) for s in spans]


def observed(windows: list[Window]) -> Observed:
    if not windows:
        raise RunError(f"All clips are shorter than {WINDOW / FPS:.0f} s: longer ones are needed.")
    activities = [speech_activity(w.speech, WINDOW) for w in windows]
    return Observed(
        np.stack([w.pose for w in windows]), np.stack(activities), np.stack([w.openness for w in windows])
    )


def compare(model: NaturalMotion, jitter_PJ: np.ndarray, held: list[Window]) -> dict[str, Any]:
    """Quartiles of the windows' figures, and the median of tracks drawn for their speech, with the landmarks' jitter."""
    drawn = np.stack([model.draw(w.speech, WINDOW, seed).pose for seed, w in enumerate(DRAWS * held)])
    drawn = drawn + jitter_like(jitter_PJ, len(drawn), WINDOW)
    of_real, of_drawn = window_figures(observed(held).poses), window_figures(drawn)
    return {
        name: {
            "quartiles": [float(f"{q:.3g}") for q in np.percentile(values, (25, 75))],
            "drawn": float(f"{np.median(of_drawn[name]):.3g}"),
        }
        for name, values in of_real.items()
    }


def window_figures(poses_NTP: np.ndarray) -> dict[str, np.ndarray]:
    """Of each axis: standard deviation, range, and power in bands, each (N,), after the smoothing of motion tracks."""
    from scipy.ndimage import gaussian_filter1d

    frames, figures = poses_NTP.shape[1], {}
    frequencies = np.arange(1, frames // 2 + 1) * FPS / frames
    for p, axis in enumerate(POSE_AXES):
        curves = gaussian_filter1d(poses_NTP[..., p], JITTER_SIGMA, axis=1, mode="nearest")
        figures |= {f"{axis} std": curves.std(1), f"{axis} range": np.ptp(curves, axis=1)}
        for low, high in BANDS:
            band = (frequencies >= low) & (frequencies < high)
            figures[f"{axis} {low}-{high} Hz"] = periodogram(curves)[:, band].sum(1)
    return figures
