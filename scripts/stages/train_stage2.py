"""Stage 2: tunes the generator on one face, and with adapt=personal adapts stage 1 to the person's speech.

Writes results/<name>/stage2/<face>-<hash>/tuned.safetensors (the changed tensors, the pivots and the hash of the base
generator) and, if asked, adapted-<hash>.safetensors beside it. The hashes cover everything that decides the result, so
generate.py finds both files by the same face and settings.
"""

from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import Config
from encoders.content_hash import content_hash
from metrics.report.plots import save_image, side_by_side
from scripts.core.networks import (
    build_renderer,
    build_teacher,
    encoder_path,
    generator_path,
    inversion_loss_hashes,
    renderer_path,
    weight_hashes,
)
from scripts.core.provenance import save_provenance
from scripts.core.runtime import Run, RunError, shown
from scripts.stages.adapt_stage1 import adapt_stage1, existing_adapted
from scripts.stages.stage_results import Face, Latents, Person
from stylegan2.render import render
from stylegan2.weights import file_hash
from tuning.pivotal import Tuned, tune, uniform_frames
from tuning.tuned_weights import load_tuned, save_tuned


def train_stage2(
    config: Config, run: Run, face: Face, training: Latents | None = None, checkpoint: Path | None = None
) -> Person:
    """The face with its tuned generator and, if adapt is on and the face comes with speech, its adapted stage 1.

    training: the codes that stage 1 was trained on, which tuning.response_weight needs. checkpoint: the stage-1 model
    that adaptation starts from. Existing files are reused, unless resume=none.
    """
    tuned = tuned_path(face, config, run, training)
    if tuned.is_file() and config.resume != "none":
        run.say(f"stage 2: {shown(tuned)}")
    else:
        with run.timed("stage2"):
            _tune(tuned, face, config, run, training)
    if checkpoint is None:
        return Person(face, tuned)
    if config.adapt.enabled and config.adapted == "auto" and face.own is not None:
        adapt_stage1(face.own, face.name, tuned.parent, checkpoint, config, run)
    return Person(face, tuned, existing_adapted(face.own, tuned.parent, checkpoint, config))


def existing_person(
    config: Config, run: Run, face: Face, checkpoint: Path, training: Latents | None = None
) -> Person:
    """The face with the tuned generator and the adapted stage 1 that tuned= and adapted= (auto|none|FILE) select;
    "auto" selects the files that stage 2 made for this face, if they exist.
    """
    auto_path = tuned_path(face, config, run, training)
    tuned = None if config.tuned == "none" else auto_path if config.tuned == "auto" else Path(config.tuned)
    if config.tuned == "auto" and not auto_path.is_file():
        tuned = None
    return Person(face, tuned, existing_adapted(face.own, auto_path.parent, checkpoint, config))


def load_person_generator(person: Person, base: Any, config: Config, run: Run) -> Any:
    """The person's tuned generator, which must come from this `base`, or the base itself."""
    if person.tuned is None:
        return base
    return load_tuned(person.tuned, base, file_hash(renderer_path(config, run)))


def tuned_path(face: Face, config: Config, run: Run, training: Latents | None = None) -> Path:
    """The name contains a hash of the frames and of everything else that determines the tuned generator."""
    made_of = [file_hash(renderer_path(config, run)), file_hash(encoder_path(config)), config.target.share]
    made_of += [config.teacher, file_hash(generator_path(config)), config.bf16, inversion_loss_hashes(config)]
    if config.tuning.response_weight and training is not None:  # used by _displacements
        made_of += [training.name, config.stage1.file is not None]
    key = content_hash(face.frames, config.tuning, config.encoder.inversion, made_of)[:8]
    results = run.results.parent / config.stage2.name if config.stage2.name else run.results
    return results / "stage2" / f"{face.name.replace('/', '_')}-{key}" / "tuned.safetensors"


def _tune(path: Path, face: Face, config: Config, run: Run, training: Latents | None) -> None:
    count = len(uniform_frames(len(face.frames), config.tuning.max_frames))
    run.say(f"tuning the generator on {face.name} ({count} frames, at most {config.tuning.steps} steps)")
    base = build_renderer(config, run)
    teacher = build_teacher(config, run)
    displacements = _displacements(face, config, training)
    tuned = tune(base, face.w, face.frames, teacher, config.tuning, displacements)
    base_hash = file_hash(renderer_path(config, run))
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


def _displacements(face: Face, config: Config, training: Latents | None) -> np.ndarray | None:
    """Displacements of speech, (N, L, D), for tuning.response_weight; None if it is 0.

    If stage 1 comes from a file, only displacements of other people are used, because then the face's own training
    clips are scored.
    """
    if not config.tuning.response_weight or training is None:
        return None
    entries = training.entries("train")
    if config.stage1.file is not None:
        entries = [e for e in entries if e.speaker != face.name]
    if not entries:
        raise RunError(
            "tuning.response_weight needs displacements, but there is no training clip to take them from: set it to 0."
        )
    clips = [training.codes(e) for e in entries[:: max(1, len(entries) // 16)]]
    return np.concatenate([clip.w[::8].astype(np.float32) - clip.w_ref for clip in clips])


def _before_after(face: Face, base: Any, tuned: Tuned) -> np.ndarray:
    """Truth, base and tuned generator side by side, for up to four of the frames."""
    shown_frames = uniform_frames(len(tuned.chosen), 4)
    true = [face.frames[tuned.chosen[i]] for i in shown_frames]
    rendered = [render(generator, tuned.pivots[shown_frames]) for generator in (base, tuned.generator)]
    return np.concatenate(list(side_by_side(true, *rendered, size=true[0].shape[0])), axis=0)
