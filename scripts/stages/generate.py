"""Speech and one face -> an mp4 with sound."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from rich.progress import track

from audio.timing import FPS, frames_of_samples
from audio.waveform import UnknownFormatError, Waveform, read_waveform
from configs.schema import Config
from encoders.footage.file_names import legible
from encoders.footage.video_reader import UnreadableError, read_audio
from encoders.footage.video_writer import write_video
from scripts.core.networks import build_renderer, renderer_path, weight_hashes
from scripts.core.provenance import plain, provenance, write_json
from scripts.core.runtime import Run, RunError, shown
from scripts.stages.adapt_stage1 import load_stage1_for
from scripts.stages.dub import composed, demand_composable
from scripts.stages.evaluate_case import predict_latents
from scripts.stages.lip_amplitude import fitted_to_face
from scripts.stages.motion import check_motion, latent_motion_of, motion_track
from scripts.stages.stage_results import Person
from scripts.stages.train_stage2 import generator_used, load_person_generator
from stylegan2.weights import WeightsError
from trajectory.motion.apply import blinking, moved
from trajectory.motion.natural_motion import ASSET as NATURAL_MOTION
from trajectory.synthetic_corpus.espeak import synthesise

SENTENCE = "People who do not exist can still speak: please bring both boats back to the bay."
Watch = Callable[
    [np.ndarray, float], None
]  # takes a frame, uint8 (H, W, 3), and the share that is done with it
LONGEST_NAME = 255  # bytes of one file's or folder's name; the limit of ext4, XFS, APFS and NTFS


def generate(
    config: Config,
    run: Run,
    person: Person,
    checkpoint: Path,
    speech: Waveform | None,
    watch: Watch | None = None,
) -> Path:
    """Writes the video of a person speaking; the file appears only when it is complete.

    speech: None stands for the part of the person's clip that stage 2 was not tuned on, or a synthesised sentence.
    watch: is called with each frame when it is rendered.
    """
    output, face = output_path(config, run), person.face
    with run.timed("generate"):
        speech = speech or face.speech or synthesised_sentence()
        if speech.silent:
            run.say(
                f"The sound of {config.wav or face.name} is silent throughout, so there is no speech for the lips to "
                "follow: give wav= a recording with speech."
            )
        generator = load_person_generator(person, build_renderer(config, run), config, run)
        model = load_stage1_for(person.adapted, checkpoint, config, run)
        model, lips = fitted_to_face(model, person, generator, config, run)
        frames = frames_of_samples(len(speech.samples))
        run.say(
            f"face {face.name}, {speech.seconds:.1f} s of speech, "
            + generator_used(person)
            + f", stage 1 {shown(person.adapted or checkpoint)}"
        )
        motion = motion_track(config, run, speech, frames)
        turns_TLD, blinks_TLD = latent_motion_of(config, run, motion)
        w_TLD = predict_latents(model, speech, face.w_ref, frames) + turns_TLD
        pictures, rate = composed(config, run, face, generator, w_TLD)
        if config.compose == "crop":
            pictures = moved(blinking(pictures, generator, w_TLD, blinks_TLD), motion.pose)
        total = round(frames * rate / FPS)
        if watch:
            pictures = watched(pictures, total, watch)
        pictures = track(pictures, "generate", total, transient=True)
        shown_frames = write_video(output, pictures, speech, rate)
    files = {"trajectory": checkpoint, "renderer": renderer_path(config, run)}
    files |= {"tuned": person.tuned} if person.tuned else {}
    files |= {"adapted": person.adapted} if person.adapted else {}
    files |= {"motion": NATURAL_MOTION} if config.motion.kind == "natural" else {}
    record = {"face": face.name, "frames": shown_frames, "lips": lips, "seconds": run.seconds}
    record |= {"config": plain(config)}
    hashes = weight_hashes(config, **files)
    write_json(record_path(output), provenance() | record | {"weights": hashes})
    run.say(f"video: {shown(output)} ({shown_frames} frames)")
    return output


def watched(frames: Iterable[np.ndarray], total: int, watch: Watch) -> Iterator[np.ndarray]:
    """The same frames; `watch` is called with each of them before it is passed on."""
    for k, frame in enumerate(frames, 1):
        watch(frame, k / total)
        yield frame


def read_inputs(config: Config, run: Run) -> Waveform | None:
    """The sound of wav=, or None if it is not given. Raises an error if an input is missing, compose= does not fit the
    others or output= cannot be written; called first, so that the error comes before any inversion or training.
    """
    output_path(config, run)
    check_motion(config)
    demand_composable(config)
    for named in (config.stage1.file, config.tuned, config.adapted):
        if named not in (None, "auto", "none") and not Path(named).is_file():
            raise WeightsError(f"There is no weight file at {named}: check the path.")
    if config.wav is None:
        return None
    reading: dict[str, str] = {}
    speech = read_speech(Path(config.wav), reading)
    if reading:
        run.say(f"{config.wav}: {'; '.join(reading.values())}")
    return speech


def read_speech(path: Path, reading: dict[str, str] | None = None) -> Waveform:
    """The sound of a sound file or video of any format: what libsndfile cannot open is read by FFmpeg. reading: gets which
    of several sound tracks it is.
    """
    try:
        return read_waveform(path)
    except UnknownFormatError as error:
        try:
            return read_audio(path, reading)
        except UnreadableError:
            raise error from None


def synthesised_sentence() -> Waveform:
    try:
        return synthesise(SENTENCE).waveform
    except ModuleNotFoundError as error:
        raise RunError(
            "Give wav=FILE, or run pip install -e '.[corpus]' to have a sentence synthesised."
        ) from error


def output_path(config: Config, run: Run) -> Path:
    """The video's file: output=, or a name made of those of the inputs. Raises RunError if it cannot be written."""
    if config.output is None:
        named = [Path(file).resolve().stem for file in (config.photo or config.clip, config.wav) if file]
        path = run.results / "generate" / f"{legible('-'.join(named)) or 'video'}.mp4"
    else:
        path = Path(config.output)
        if os.path.isdir(path):
            raise RunError(f"output={path} is a folder: give the video's name too, {path / 'video.mp4'}.")
        if path.suffix.lower() not in (".mp4", ".mov", ".mkv"):
            raise RunError(f"output={path} must end in .mp4, .mov or .mkv.")
    demand_writable(path)
    return path


def demand_writable(path: Path) -> None:
    """Raises RunError if the video, or the record beside it, cannot be written under this name."""
    record = record_path(path)
    # atomic_path first writes a file whose name has the first 80 characters of the record's and 15 more.
    temporary = record.with_name(f"{record.stem[:80]}{'-' * 15}")
    for name in (*record.parts, temporary.name):
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise RunError(
                f"The video's name {path.name[:40]}... or a folder's in its path is too long for the file system: give a "
                "shorter output=FILE."
            )
    for file in (path, record):
        if os.path.isdir(file):
            raise RunError(
                f"The video {path} cannot be written: {file} is a folder; give another output=FILE."
            )
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not os.path.isdir(folder):
        raise RunError(
            f"The video {path} cannot be written: {folder} is not a folder; give another output=FILE."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(
            f"The video {path} cannot be written: the folder {folder} is not writable; change its permissions or give "
            "another output=FILE."
        )


def record_path(video: Path) -> Path:
    """The JSON file beside the video that says how it was made."""
    return video.with_name(f"{video.name}.json")
