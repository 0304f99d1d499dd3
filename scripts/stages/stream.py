"""Sound that is heard while it comes -> a video that is watched while it is made."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audio.features import checked_encoder
from audio.live_sound import CONVERT, pcm_blocks
from audio.timing import FPS
from configs.schema import Config
from encoders.footage.live_video import LiveVideo
from scripts.core.networks import build_predictor, build_renderer, renderer_path, weight_hashes
from scripts.core.provenance import plain, provenance, write_json
from scripts.core.runtime import Run, RunError, start
from scripts.core.signals import Ended
from scripts.stages.face import face_of_files
from scripts.stages.generate import demand_writable, read_speech, record_path
from scripts.stages.lip_amplitude import fitted_to_face
from scripts.stages.live_head import LiveHead
from scripts.stages.run_pipeline import checkpoint_of
from scripts.stages.train_stage2 import existing_person, generator_used, load_person_generator
from stylegan2.weights import atomic_path
from trajectory.model.predictor import demand_live

BLOCK = 640  # samples that a file's sound is given in
SUFFIXES = {"mp4": (".mp4",), "raw": (".rgb", ".raw")}


def stream(config: Config) -> None:
    """Messages go to standard error, because standard output is for the video."""
    with redirect_stdout(sys.stderr):
        run = start(config)
        blocks = _sound(config)
        _demand_output(config)
        if config.stage1.file is None:
            raise RunError(
                "stream.py needs a stage 1: leave out stage1.source=, or give stage1.weights=FILE."
            )
        checkpoint = checkpoint_of(config, run, None)
        model = build_predictor(checkpoint, config, run)
        demand_live(model)
        checked_encoder(
            model.features, run.device
        )  # loaded before the face is known, as everything that can be
        face = face_of_files(config, run)
        if face is None:
            raise RunError("stream.py needs a face: give photo=FILE or clip=FILE.")
        person = existing_person(config, run, face, checkpoint)
        generator = load_person_generator(person, build_renderer(config, run), config, run)
        model, lips = fitted_to_face(model, person, generator, config, run)
        head = LiveHead(model, generator, face.w_ref)
        run.say(
            f"face {face.name}, {generator_used(person)}, look-ahead {model.features.lookahead_ms:g} ms; ready"
        )
        files = {"trajectory": checkpoint, "renderer": renderer_path(config, run)}
        files |= {"tuned": person.tuned} if person.tuned else {}
        with _output(config) as file:
            frames, seconds = write_live(head, blocks, file, config, run)
        if config.output:
            record = {"face": face.name, "frames": frames, "lips": lips, "config": plain(config)}
            write_json(
                record_path(Path(config.output)),
                provenance() | record | {"weights": weight_hashes(config, **files)},
            )
        speed = f", {frames / seconds:.1f} frames a second" if seconds else ""
        run.say(f"{frames} frames ({frames / FPS:.1f} s){speed}")


def write_live(
    head: LiveHead, blocks: Iterator[np.ndarray], file: BinaryIO, config: Config, run: Run
) -> tuple[int, float]:
    """Writes the video until the sound ends, the reader closes the pipe, or a signal ends the script; what was heard until
    then is completed. Returns the number of frames and the seconds from the first one to the last.
    """
    first = last = 0.0
    with LiveVideo(file, config.stream.format) as video:
        try:
            for image, samples in head.frames(blocks):
                video.add(image, samples)
                last = time.perf_counter()
                first = first or last
        except BrokenPipeError:
            run.say("the reader has closed the pipe")
        except (KeyboardInterrupt, Ended):
            run.say("ended by a signal")
    return video.frames, last - first


def _sound(config: Config) -> Iterator[np.ndarray]:
    """The sound of wav=, read whole, or of standard input as it comes."""
    if config.wav is not None:
        samples = read_speech(Path(config.wav)).samples
        return (samples[k : k + BLOCK] for k in range(0, len(samples), BLOCK))
    if sys.stdin is None or sys.stdin.isatty():
        raise RunError(f"There is no sound: pipe 16 kHz mono 16-bit samples into stream.py, {CONVERT}")
    return pcm_blocks(sys.stdin.buffer)


def _demand_output(config: Config) -> None:
    """Raises RunError if there is nowhere to write the video."""
    if config.compose != "crop" or config.motion.kind != "none":
        raise RunError("stream.py moves the lips of the face's crop alone: leave out compose= and motion=.")
    if config.output is None:
        if sys.__stdout__ is None or sys.__stdout__.isatty():
            raise RunError(
                "Standard output is a terminal: pipe the video into a player (| ffplay -), or give output=FILE."
            )
        return
    path, suffixes = Path(config.output), SUFFIXES[config.stream.format]
    if path.suffix.lower() not in suffixes:
        raise RunError(
            f"output={path} must end in {' or '.join(suffixes)} for stream.format={config.stream.format}."
        )
    demand_writable(path)


@contextmanager
def _output(config: Config) -> Iterator[Any]:
    """The open file: output=, which appears when it is complete, or standard output."""
    if config.output:
        with atomic_path(config.output) as temporary, temporary.open("wb") as file:
            yield file
        return
    # A copy, so that a closed pipe raises no further error when Python closes its own at the end.
    with suppress(BrokenPipeError), os.fdopen(os.dup(1), "wb") as file:
        yield file
