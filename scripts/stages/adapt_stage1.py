"""Adapts stage 1 to one person's own speech (adapt=personal) and loads the model that drives a person's face.

The adapted model lies beside the person's tuned generator; its name is the hash of the person's speech, the checkpoint
that it started from and the settings.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from configs.schema import Config
from encoders.content_hash import content_hash
from scripts.core.networks import build_detector, build_predictor, with_encoder_of
from scripts.core.runtime import Run, RunError, shown
from scripts.stages.lip_amplitude import opening_in_frames
from scripts.stages.stage_results import Face
from stylegan2.weights import file_hash
from trajectory.adapt.adaptation_data import PersonalSpeech, require_enough_speech
from trajectory.adapt.personal_adaptation import adapt, load_adapted, save_adapted
from trajectory.model.predictor import TrajectoryPredictor


def demand_speech(face: Face, config: Config) -> None:
    """If stage 1 is to be adapted, raises RunError for a face without speech and TrajectoryError for one with too
    little. Called before the generator is tuned, because tuning takes minutes.
    """
    if not config.adapt.enabled:
        return
    if face.own is None:
        raise RunError(
            f"Stage 1 cannot be adapted to {face.name}: a photo has no speech; give clip=VIDEO, or set adapt=none."
        )
    require_enough_speech(face.own)


def adapt_stage1(
    own: PersonalSpeech,
    name: str,
    folder: Path,
    checkpoint: Path,
    generator: Callable[[], Any],
    config: Config,
    run: Run,
) -> Path:
    """The file of a person's adapted stage 1, made in `folder` if it does not exist. own: the person's speech and codes
    in the frames that may be fitted to. generator: builds the person's tuned generator.
    """
    path = adapted_path(own, folder, checkpoint, config)
    if path.is_file() and config.resume != "none":
        run.say(f"adapted stage 1: {shown(path)}")
        return path
    run.say(f"adapting stage 1 to {name} ({len(own.w)} frames)")
    with run.timed("adapt"):
        opening = partial(opening_in_frames, generator(), build_detector(config.data, str(run.device)))
        adapted = adapt(build_predictor(checkpoint, config, run), own, config.adapt, opening)
        save_adapted(path, adapted, file_hash(checkpoint), {"face": name})
    run.say(
        f"correlation with the lips on held-out frames of the clip {adapted.before['lips']:.2f} -> "
        f"{adapted.after['lips']:.2f}; rendered lips move {adapted.after['slope']:.2f} times as far as their codes say, "
        f"gain {adapted.after['gain']:.2f}; wrote {shown(path)}"
    )
    return path


def adapted_path(own: PersonalSpeech, folder: Path, checkpoint: Path, config: Config) -> Path:
    """The name is a hash of everything that determines the adapted model and is not part of the folder's name. The
    codes are not part of the key: with another number of threads, or on a GPU, they differ in the last bits."""
    reference = (config.displacement.reference, config.displacement.reference_seed)
    parts = (own.sound.samples, own.opening, own.known, reference)
    key = content_hash(file_hash(checkpoint), *parts, config.adapt)[:8]
    return folder / f"adapted-{key}.safetensors"


def existing_adapted(
    own: PersonalSpeech | None, folder: Path, checkpoint: Path, config: Config
) -> Path | None:
    """The adapted stage 1 that adapted=auto|none|FILE selects; "auto" selects the one in `folder`, if it exists."""
    if config.adapted not in ("auto", "none"):
        return Path(config.adapted)
    if config.adapted == "none" or not config.adapt.enabled or own is None:
        return None
    path = adapted_path(own, folder, checkpoint, config)
    return path if path.is_file() else None


def load_stage1_for(adapted: Path | None, checkpoint: Path, config: Config, run: Run) -> TrajectoryPredictor:
    """The adapted model, which must have started from this checkpoint, or the checkpoint's own model."""
    if adapted is None:
        return build_predictor(checkpoint, config, run)
    return with_encoder_of(config, load_adapted(adapted, file_hash(checkpoint), run.device))
