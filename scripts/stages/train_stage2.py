"""Stage 2: tunes the generator on one face, and with adapt=personal adapts stage 1 to the person's speech.

Writes results/<name>/stage2/<face>-<hash>/tuned.safetensors (the changed tensors, the pivots and the hash of the base
generator) and, if asked, adapted-<hash>.safetensors beside it. The hashes cover everything that decides the result, so
generate.py finds both files by the same face and settings.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import Config
from encoders.content_hash import content_hash
from metrics.report.plots import save_image, side_by_side
from scripts.core.networks import (
    build_likeness,
    build_renderer,
    build_teacher,
    encoder_path,
    generator_path,
    inversion_key_parts,
    likeness_hashes,
    renderer_path,
    weight_hashes,
)
from scripts.core.provenance import RECORD, save_provenance
from scripts.core.runtime import Run, shown
from scripts.stages.adapt_stage1 import adapt_stage1, existing_adapted
from scripts.stages.stage_results import Face, Person
from stylegan2.render import render
from stylegan2.weights import file_hash
from tuning.pivotal import Tuned, tune, uniform_frames
from tuning.tuned_weights import load_tuned, save_tuned


def train_stage2(config: Config, run: Run, face: Face, checkpoint: Path | None = None) -> Person:
    """The face with its tuned generator and, if adapt is on and the face comes with speech, its adapted stage 1.

    checkpoint: the stage-1 model that adaptation starts from. Existing files are reused, unless resume=none.
    """
    tuned = tuned_path(face, config, run)
    # Without its record the tuning was stopped after the generator was written, before what lies beside it.
    if tuned.is_file() and (tuned.parent / RECORD).is_file() and config.resume != "none":
        run.say(f"stage 2: {shown(tuned)}")
    else:
        with run.timed("stage2"):
            _tune(face, tuned, config, run)
    if checkpoint is None:
        return Person(face, tuned)
    if config.adapt.enabled and config.adapted == "auto" and face.own is not None:

        def generator() -> Any:
            return load_person_generator(Person(face, tuned), build_renderer(config, run), config, run)

        adapt_stage1(face.own, face.name, tuned.parent, checkpoint, generator, config, run)
    return Person(face, tuned, existing_adapted(face.own, tuned.parent, checkpoint, config))


def existing_person(config: Config, run: Run, face: Face, checkpoint: Path) -> Person:
    """The face with the tuned generator and the adapted stage 1 that tuned= and adapted= (auto|none|FILE) select;
    "auto" selects the files that stage 2 made for this face, if they exist. Of several tuned generators it takes that made in
    float32 without a limit of time, then one in this precision without a limit, then one within tuning.seconds.
    """
    full = replace(config, tuning=replace(config.tuning, seconds=None))
    settings = (replace(full, precision="32-true"), full, config)
    paths = [tuned_path(face, chosen, run) for chosen in settings]
    auto_path = next((path for path in paths if path.is_file()), None)
    tuned = None if config.tuned == "none" else auto_path if config.tuned == "auto" else Path(config.tuned)
    return Person(face, tuned, existing_adapted(face.own, (auto_path or paths[0]).parent, checkpoint, config))


def tuned_at_once(person: Person, config: Config, run: Run) -> Person:
    """The person with a generator that is tuned now, within tuning.seconds, if none has been tuned on the face."""
    if person.tuned is not None or config.tuned != "auto":
        return person
    return replace(person, tuned=train_stage2(config, run, person.face).tuned)


def generator_used(person: Person) -> str:
    """Which generator renders the person, for a message."""
    return f"tuned generator {shown(person.tuned)}" if person.tuned else "generator not tuned on this face"


def load_person_generator(person: Person, base: Any, config: Config, run: Run) -> Any:
    """The person's tuned generator, which must come from this `base`, or the base itself."""
    if person.tuned is None:
        return base
    return load_tuned(person.tuned, base, file_hash(renderer_path(config, run)))


def tuned_path(face: Face, config: Config, run: Run) -> Path:
    """The name contains a hash of the frames and of everything else that determines the tuned generator."""
    made_of = [file_hash(renderer_path(config, run)), file_hash(encoder_path(config)), config.target.share]
    made_of += [config.teacher, file_hash(generator_path(config)), config.bf16, inversion_key_parts(config)]
    made_of += likeness_hashes() if config.tuning.loss == "likeness" else []
    key = content_hash(face.frames, config.tuning, config.encoder.inversion, made_of)[:8]
    results = run.results.parent / config.stage2.name if config.stage2.name else run.results
    return results / "stage2" / f"{face.name.replace('/', '_')}-{key}" / "tuned.safetensors"


def _tune(face: Face, path: Path, config: Config, run: Run) -> None:
    """Tunes the generator on the face and writes it to `path`, a picture and its record beside it."""
    count = len(uniform_frames(len(face.frames), config.tuning.max_frames))
    limit = f"{config.tuning.steps} steps" + (
        f" or {config.tuning.seconds:g} s" if config.tuning.seconds else ""
    )
    run.say(f"tuning the generator on {face.name} ({count} frames, at most {limit})")
    base = build_renderer(config, run)
    teacher = build_teacher(config, run)
    likeness = build_likeness(teacher, run) if config.tuning.loss == "likeness" else None
    tuned = tune(base, face.w, face.frames, face.landmarks, teacher, config.tuning, likeness)
    base_hash = file_hash(renderer_path(config, run))
    (path.parent / RECORD).unlink(missing_ok=True)  # of an earlier tuning
    notes = {
        "face": face.name,
        "clip": face.clip,
        "before": tuned.before,
        "after": tuned.after,
        "perceptual": teacher.name,
        "synthetic": True,
    }
    save_tuned(path, tuned.generator, base, tuned.pivots, base_hash, notes)
    save_image(path.parent / "before_after.png", _before_after(face, base, tuned))
    fit = {"before": tuned.before, "after": tuned.after, "stopped": tuned.stopped, "steps": len(tuned.steps)}
    hashes = weight_hashes(config, renderer=renderer_path(config, run), tuned=path)
    save_provenance(path.parent, config, face=face.name, fit=fit, weights=hashes, seconds=run.seconds)
    run.say(
        f"perceptual distance {tuned.before['perceptual']:.3f} -> {tuned.after['perceptual']:.3f} "
        f"after {len(tuned.steps)} steps; wrote {shown(path)}"
    )


def _before_after(face: Face, base: Any, tuned: Tuned) -> np.ndarray:
    """Truth, base and tuned generator side by side, for up to four of the frames."""
    shown_frames = uniform_frames(len(tuned.chosen), 4)
    true = [face.frames[tuned.chosen[i]] for i in shown_frames]
    rendered = [render(generator, tuned.pivots[shown_frames]) for generator in (base, tuned.generator)]
    return np.concatenate(list(side_by_side(true, *rendered, size=true[0].shape[0])), axis=0)
