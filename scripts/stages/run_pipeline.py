"""Runs every stage once, in sequence; each receives the results of earlier stages as arguments and never calls them.

A stage whose result already exists finds it by its key and returns immediately.
"""

from pathlib import Path

from configs.schema import Config
from scripts.core.runtime import Run, RunError
from scripts.stages.adapt_stage1 import demand_speech
from scripts.stages.evaluate import evaluate
from scripts.stages.face import face_of_data, face_of_files
from scripts.stages.generate import generate, read_inputs
from scripts.stages.invert_frames import invert_frames
from scripts.stages.prepare_data import prepare_data
from scripts.stages.scored_clips import chosen_clips
from scripts.stages.stage_results import Latents
from scripts.stages.train_stage1 import check_training_inputs, train_stage1
from scripts.stages.train_stage2 import train_stage2
from trajectory.model.predictor import shipped_stage1


def run_pipeline(config: Config, run: Run, video: bool = True) -> Path:
    """Runs all stages and returns the path of report.json. video: also generate a video (evaluate.py does not)."""
    # Report wrong inputs, and a lack of test clips, before anything is trained.
    check_training_inputs(config)
    speech = read_inputs(config, run) if video else None
    face = face_of_files(config, run) if video else None
    latents = latents_of(config, run)
    chosen = chosen_clips(latents, config)
    target = face_of_data(config, latents)
    demand_speech(target, config)

    # Run stage 1, then stage 2 on the target speaker, who is scored, and on the face of photo= or clip=.
    training = training_latents(config, run, latents, config.metrics.controls)
    checkpoint = checkpoint_of(config, run, training)
    person = train_stage2(config, run, target, checkpoint)
    if video:
        shown = person if face is None else train_stage2(config, run, face, checkpoint)
        generate(config, run, shown, checkpoint, speech)
    report = evaluate(config, run, chosen, latents, training, checkpoint, person)
    spent = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in run.seconds.items())
    run.say(f"seconds: {spent}; together {sum(run.seconds.values()):.0f}")
    return report


def latents_of(config: Config, run: Run) -> Latents:
    """Runs prepare_data, then invert_frames: the codes of the run's data."""
    return invert_frames(config, run, prepare_data(config, run))


def training_latents(
    config: Config, run: Run, latents: Latents | None, controls: bool = False
) -> Latents | None:
    """The codes of the run's data, if they are needed: None if stage 1 comes from a file and no control baseline is fitted
    (controls is False).
    """
    if config.stage1.file is not None and not controls:
        return None
    return latents if latents is not None else latents_of(config, run)


def checkpoint_of(config: Config, run: Run, training: Latents | None) -> Path:
    """The stage-1 checkpoint: the file that config.stage1 names, or the result of train_stage1.

    Raises RunError for the shipped model with another generator, whose W+ means other faces.
    """
    shipped = [str(shipped_stage1()), str(shipped_stage1(streaming=True))]
    if config.stage1.file in shipped and config.generator.weights != "embedded":
        raise RunError(
            f"The shipped stage 1 moves the embedded generator's W+, not that of {config.generator.weights}: train one for "
            "this generator (stage1.source=data), or give stage1.weights=FILE."
        )
    if config.stage1.file is not None:
        return Path(config.stage1.file)
    assert training is not None
    return train_stage1(config, run, training)
