"""Which stage 1 drives a face: the one that was adapted to this person's own clip, or the one of the checkpoint.

train_stage2.py adapts it (adapt=personal); the file lies beside tuned.safetensors, in the folder that is found by the
person's frames and how they were inverted, and is found there by their speech, the checkpoint it started from and the
settings.
"""

from pathlib import Path

from configs.schema import Config
from encoders.content_hash import content_hash
from scripts.core.networks import the_trajectory, with_encoder_of
from scripts.core.runtime import Run, RunError, shown
from stylegan2.weights import file_hash
from trajectory.adapt.adaptation_data import OwnSpeech, enough_speech
from trajectory.adapt.personal_adaptation import adapt, load_adapted, save_adapted
from trajectory.model.predictor import TrajectoryPredictor


def demand_speech(own: OwnSpeech | None, name: str, config: Config) -> None:
    """Where stage 1 is to be adapted: RunError for a face without speech, TrajectoryError for one with too little.

    Asked before the generator is tuned for minutes.
    """
    if not config.adapt.enabled:
        return
    if own is None:
        raise RunError(
            f"Stage 1 cannot be adapted to {name}: a photo has no speech; give clip=VIDEO, or set adapt=none."
        )
    enough_speech(own)


def adapted_on(own: OwnSpeech, name: str, folder: Path, checkpoint: Path, config: Config, run: Run) -> Path:
    """The adapted stage 1 of a face, made in `folder` if it is not there.

    own: what the person said and did in the frames that may be learnt from.
    """
    path = adapted_path(own, folder, checkpoint, config)
    if path.is_file() and config.resume != "none":
        run.say(f"adapted stage 1: {shown(path)}")
        return path
    run.say(f"adapting stage 1 to {name} ({len(own.w)} frames)")
    with run.timed("adapt"):
        adapted = adapt(the_trajectory(checkpoint, config, run), own, config.adapt)
        save_adapted(path, adapted, file_hash(checkpoint), {"face": name})
    run.say(
        f"correlation with the lips on held-out frames of the clip {adapted.before['lips']:.2f} -> "
        f"{adapted.after['lips']:.2f}; wrote {shown(path)}"
    )
    return path


def adapted_path(own: OwnSpeech, folder: Path, checkpoint: Path, config: Config) -> Path:
    """Keyed by all that decides what it becomes and the folder's name does not say. Codes are not in it: computed again
    with other threads, or on a GPU, they differ in the last bits."""
    reference = (config.displacement.reference, config.displacement.reference_seed)
    parts = (own.sound.samples, own.opening, own.known, reference)
    key = content_hash(file_hash(checkpoint), *parts, config.adapt)[:8]
    return folder / f"adapted-{key}.safetensors"


def found_adapted(own: OwnSpeech | None, folder: Path, checkpoint: Path, config: Config) -> Path | None:
    """The adapted stage 1 that adapted=auto|none|FILE names, if there is one."""
    if config.adapted not in ("auto", "none"):
        return Path(config.adapted)
    if config.adapted == "none" or not config.adapt.enabled or own is None:
        return None
    path = adapted_path(own, folder, checkpoint, config)
    return path if path.is_file() else None


def load_stage1_for(adapted: Path | None, checkpoint: Path, config: Config, run: Run) -> TrajectoryPredictor:
    """The adapted model, which must come from this checkpoint, or the checkpoint's own."""
    if adapted is None:
        return the_trajectory(checkpoint, config, run)
    return with_encoder_of(config, load_adapted(adapted, file_hash(checkpoint), run.device))
