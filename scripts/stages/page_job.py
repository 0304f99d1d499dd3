"""One job of the web page: a photo and a voice -> a video, and the people who do not exist as examples. No web server here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from configs.schema import Config
from scripts.core.networks import build_generator
from scripts.core.runtime import Run, RunError
from scripts.stages.face import face_of_files
from scripts.stages.generate import generate, read_inputs
from scripts.stages.run_pipeline import checkpoint_of
from scripts.stages.stage_results import Person
from scripts.stages.train_stage2 import train_stage2
from stylegan2.protocol import sample_w
from stylegan2.render import render
from trajectory.synthetic_corpus.speakers import FEMALE, MALE

EXAMPLES = 3  # people of each sex
Report = Callable[[float, str], None]  # share of the job that is done, and what is being done
Show = Callable[[np.ndarray], None]  # takes each frame, uint8 (H, W, 3), when it is rendered


@dataclass(frozen=True)
class Request:
    """What the page asks for. photo, sound: files, or None where nothing was given."""

    photo: str | None
    sound: str | None
    tune: bool = True  # tune the generator on the photo
    motion: bool = True  # head and eyelids move
    gain: float = 1.0  # of the head's motion
    blink: bool = True
    compose: Literal["crop", "photo"] = "crop"


def make_video(request: Request, config: Config, run: Run, folder: Path, report: Report, show: Show) -> Path:
    """The video, in `folder`, where the tuned generator too is left. Raises the errors of the stages, all of them USER_ERRORS.

    config, run: those that the page was started with.
    """
    if request.photo is None:
        raise RunError("There is no face yet: upload a photo, take one, or choose an example.")
    if request.sound is None:
        raise RunError("There is no voice yet: upload a recording, or record one.")
    motion = replace(
        config.motion,
        kind="natural" if request.motion and request.compose == "crop" else "none",
        gain=request.gain,
        blink=request.blink,
    )
    config = replace(
        config,
        photo=request.photo,
        clip=None,
        wav=request.sound,
        output=str(folder / "video.mp4"),
        compose=request.compose,
        tuned="auto" if request.tune else "none",
        motion=motion,
    )
    run = replace(run, results=folder, data=folder, seconds={})  # nothing of a visitor's face is kept
    speech = read_inputs(config, run)
    assert speech is not None
    if speech.seconds > config.page.max_seconds:
        raise RunError(
            f"The recording lasts {speech.seconds:.0f} s; this page takes at most {config.page.max_seconds:g} s "
            "(page.max_seconds)."
        )
    report(0.05, "finding the face")
    face = face_of_files(config, run)
    assert face is not None
    checkpoint = checkpoint_of(config, run, None)
    person = Person(face)
    if request.tune:
        report(0.2, "tuning the generator on the photo")
        person = train_stage2(config, run, face)
    before, text = 0.6 if request.tune else 0.3, f"rendering {speech.seconds:.1f} s of video"
    report(before, text)

    def watch(frame: np.ndarray, done: float) -> None:
        report(before + (1 - before) * done, text)
        show(frame)

    return generate(config, run, person, checkpoint, speech, watch)


def example_photos(config: Config, run: Run, folder: Path) -> list[Path]:
    """Pictures of people who do not exist, made by the embedded generator; none with another one, whose faces are not
    known.
    """
    if config.generator.weights != "embedded":
        return []
    generator, paths = build_generator(config, run), []
    for seed in (*FEMALE[:EXAMPLES], *MALE[:EXAMPLES]):
        path = folder / f"example {seed}.png"
        Image.fromarray(next(render(generator, sample_w(generator, 1, seed, 0.5)))).save(path)
        paths.append(path)
    return paths
