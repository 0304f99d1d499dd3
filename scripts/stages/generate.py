"""Speech and one face -> mp4 with sound. Without photo= or clip= a speaker of the data is shown, by default a synthetic
one; without wav= the part of that speaker's clip that stage 2 does not see is heard, or a synthesised sentence; stage 1 runs first if its checkpoint is absent. The generator that train_stage2.py tuned on
the same face is used if there is one, and so is the stage 1 that it adapted (adapt=personal, adapted=auto|none|FILE).
"""

from pathlib import Path

from audio.timing import frames_of_samples
from audio.waveform import Waveform, read_waveform
from configs.schema import Config
from encoders.footage.video_reader import read_audio
from encoders.footage.video_writer import write_video
from scripts.core.networks import renderer_path, weight_hashes
from scripts.core.provenance import plain, provenance, write_json
from scripts.core.runtime import Run, RunError, shown
from scripts.stages.adapt_stage1 import found_adapted, load_stage1_for
from scripts.stages.evaluate_case import spoken
from scripts.stages.prepare_data import VIDEOS
from scripts.stages.train_stage1 import train_stage1
from scripts.stages.train_stage2 import load_tuned_for, the_face, tuned_path
from stylegan2.render import render
from stylegan2.weights import WeightsError
from trajectory.synthetic_corpus.espeak import synthesise

SENTENCE = "People who do not exist can still speak: please bring both boats back to the bay."


def generate(config: Config, run: Run) -> Path:
    """The video; nothing is written under its name before it is complete."""
    output = output_path(config, run)
    # Inputs are read first: a mistake shows before anything is inverted or trained.
    waveform = the_speech(config)
    for named in (config.stage1.weights, config.tuned, config.adapted):
        if named not in (None, "auto", "none") and not Path(named).is_file():
            raise WeightsError(f"There is no weight file at {named}: check the path.")
    face = the_face(config, run) if config.photo or config.clip else None
    checkpoint = train_stage1(config, run)
    with run.timed("generate"):
        face = face or the_face(config, run)
        waveform = waveform or face.speech or a_sentence()
        generator, tuned = load_tuned_for(face, config, run)
        adapted = found_adapted(face.own, tuned_path(face, config, run).parent, checkpoint, config)
        model = load_stage1_for(adapted, checkpoint, config, run)
        frames = frames_of_samples(len(waveform.samples))
        run.say(
            f"face {face.name}, {waveform.seconds:.1f} s of speech, "
            + (f"tuned generator {shown(tuned)}" if tuned else "generator not tuned on this face")
            + (f", stage 1 {shown(adapted)}" if adapted else "")
        )
        w_TLD = spoken(model, waveform, face.w_ref, frames)
        write_video(output, render(generator, w_TLD), waveform)
    files = {"trajectory": checkpoint, "renderer": renderer_path(config, run)}
    files |= {"tuned": tuned} if tuned else {}
    files |= {"adapted": adapted} if adapted else {}
    record = {"face": face.name, "frames": frames, "seconds": run.seconds, "config": plain(config)}
    hashes = weight_hashes(config, **files)
    write_json(output.with_name(f"{output.name}.json"), provenance() | record | {"weights": hashes})
    run.say(f"video: {shown(output)} ({frames} frames)")
    return output


def the_speech(config: Config) -> Waveform | None:
    """wav=, which may be a video with sound; None if it is not given."""
    if config.wav is None:
        return None
    path = Path(config.wav)
    return read_audio(path) if path.suffix.lower() in VIDEOS else read_waveform(path)


def a_sentence() -> Waveform:
    try:
        return synthesise(SENTENCE).waveform
    except ModuleNotFoundError as error:
        raise RunError(
            "Give wav=FILE, or run pip install -e '.[corpus]' to have a sentence synthesised."
        ) from error


def output_path(config: Config, run: Run) -> Path:
    if config.output is None:
        named = [Path(file).resolve().stem for file in (config.photo or config.clip, config.wav) if file]
        return run.results / "generate" / f"{'-'.join(named) or 'video'}.mp4"
    path = Path(config.output)
    if path.suffix.lower() not in (".mp4", ".mov", ".mkv"):
        raise RunError(f"output={path} must end in .mp4, .mov or .mkv.")
    return path
