"""Entry points of the launchers that run one stage: first the earlier stages that it depends on, then the stage."""

from dataclasses import replace
from pathlib import Path

from configs.schema import Config
from scripts.core.runtime import Run, RunError
from scripts.stages.adapt_stage1 import demand_speech
from scripts.stages.evaluate_clips import evaluate_clips
from scripts.stages.evaluate_folders import compare
from scripts.stages.face import face_of_data, face_of_files
from scripts.stages.generate import generate, read_inputs
from scripts.stages.run_pipeline import checkpoint_of, latents_of, run_pipeline, training_latents
from scripts.stages.stage_results import Face, Latents, Person
from scripts.stages.train_stage1 import check_training_inputs
from scripts.stages.train_stage2 import existing_person, train_stage2, tuned_at_once


def invert_frames_alone(config: Config, run: Run) -> Latents:
    return latents_of(config, run)


def train_stage1_alone(config: Config, run: Run) -> Path:
    check_training_inputs(config)
    return checkpoint_of(config, run, training_latents(config, run, None))


def train_stage2_alone(config: Config, run: Run) -> Person:
    """Runs stage 2 on photo=, clip= or a speaker of the data; stage 1 is trained only if it is to be adapted."""
    face, latents = _face(config, run)
    demand_speech(face, config)
    checkpoint = None
    if config.adapt.enabled:
        training = training_latents(config, run, latents)
        checkpoint = checkpoint_of(replace(config, resume="auto"), run, training)
    return train_stage2(config, run, face, checkpoint)


def generate_alone(config: Config, run: Run) -> Path:
    """Reads the photo or video before stage 1 is trained, so that errors in it are reported immediately."""
    check_training_inputs(config)
    speech = read_inputs(config, run)
    face, latents = _face(config, run)
    training = training_latents(config, run, latents)
    checkpoint = checkpoint_of(config, run, training)
    person = existing_person(config, run, face, checkpoint)
    if latents is None:  # stage 2 tunes on the speakers of the data
        person = tuned_at_once(person, config, run)
    return generate(config, run, person, checkpoint, speech)


def _face(config: Config, run: Run) -> tuple[Face, Latents | None]:
    """The face of photo= or clip=; without them a speaker of the data, then with the codes of the data."""
    face = face_of_files(config, run)
    if face is not None:
        return face, None
    latents = latents_of(config, run)
    return face_of_data(config, latents), latents


def evaluate_alone(config: Config, run: Run) -> Path:
    """Evaluates this run's test clips, or two folders of videos (predictions=, references=); returns the report."""
    if config.predictions or config.references:
        return compare(config, run)
    if config.against:
        raise RunError("against= compares two methods' videos: give predictions= and references= too.")
    return run_pipeline(replace(config, photo=None, clip=None), run, video=False)


def evaluate_clips_alone(config: Config, run: Run) -> Path:
    check_training_inputs(config)
    latents = latents_of(config, run)
    training = training_latents(config, run, latents, config.metrics.controls)
    return evaluate_clips(config, run, latents, training, checkpoint_of(config, run, training))
