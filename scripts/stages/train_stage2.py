"""Tunes the generator on one face -> results/<name>/stage2/<face>-<hash>/tuned.safetensors (what changed, the pivots and
the base's hash). Without arguments the face is the first unseen speaker of the data. generate.py finds the file again
by the same photo=, clip= or speaker. With adapt=personal, stage 1 is adapted to the person's own speech too, and stored
beside it (scripts/stages/adapt_stage1.py).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audio.timing import samples_of_frames
from audio.waveform import Waveform
from configs.schema import Config
from encoders.content_hash import content_hash
from encoders.footage.prepare import align_photo, prepare_clip, read_photo
from encoders.footage.video_reader import VideoError
from encoders.geometry import aperture
from encoders.manifest import ClipEntry, read_manifest
from encoders.records import FrameClip, LatentClip
from metrics.report.plots import save_image, side_by_side
from scripts.core.networks import (
    encoder_path,
    generator_path,
    inversion_judges,
    renderer_path,
    the_detector,
    the_renderer,
    the_teacher,
    weight_hashes,
)
from scripts.core.provenance import save_provenance
from scripts.core.runtime import Run, RunError, shown
from scripts.stages.adapt_stage1 import adapted_on, demand_speech
from scripts.stages.invert_frames import (
    Inverter,
    fitted_frames,
    invert_frames,
    portrait_clip,
    portrait_frames,
    reference_frame,
)
from scripts.stages.train_stage1 import stage1_run, train_stage1
from stylegan2.image_sources import SUFFIXES
from stylegan2.render import render
from stylegan2.weights import file_hash
from trajectory.adapt.adaptation_data import OwnSpeech, own_speech
from tuning.pivotal import Tuned, tune, uniform_frames
from tuning.tuned_weights import load_tuned, save_tuned


@dataclass(frozen=True)
class Face:
    """Somebody to animate.

    frames uint8 (N, 256, 256, 3) to tune on, with their codes w (N, L, D); w_ref (L, D): the identity latent, of the
    frame `neutral` (256, 256, 3). clip, used: the clip of the data that it comes from, and how many of its first
    frames may be tuned on (the others are scored); ref_index: the neutral frame in that clip; speech: what is said in
    those others, if there are any. own: what was said and how the face moved in the frames that may be tuned on, for
    adapting stage 1.
    """

    name: str
    frames: np.ndarray
    w: np.ndarray
    neutral: np.ndarray
    w_ref: np.ndarray
    clip: str | None = None
    used: int = 0
    ref_index: int = 0
    speech: Waveform | None = None
    own: OwnSpeech | None = None


def train_stage2(config: Config, run: Run) -> Path:
    """The tuned generator of the face that the config names, made if it is not there; and its stage 1, if asked."""
    face = the_face(config, run)
    demand_speech(face.own, face.name, config)
    tuned = tuned_on(face, config, run)
    if config.adapt.enabled and face.own is not None:
        checkpoint = train_stage1(replace(config, resume="auto"), run)
        adapted_on(face.own, face.name, tuned.parent, checkpoint, config, run)
    return tuned


def tuned_on(face: Face, config: Config, run: Run) -> Path:
    path = tuned_path(face, config, run)
    if path.is_file() and config.resume != "none":
        run.say(f"stage 2: {shown(path)}")
        return path
    count = len(uniform_frames(len(face.frames), config.tuning.max_frames))
    run.say(f"tuning the generator on {face.name} ({count} frames, at most {config.tuning.steps} steps)")
    with run.timed("stage2"):
        base = the_renderer(config, run)
        teacher = the_teacher(config, run)
        tuned = tune(base, face.w, face.frames, teacher, config.tuning, _displacements(face, config, run))
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
    return path


def tuned_path(face: Face, config: Config, run: Run) -> Path:
    """Keyed by the frames and by all that decides what they become."""
    made_of = [file_hash(renderer_path(config, run)), file_hash(encoder_path(config)), config.target.share]
    made_of += [config.teacher, file_hash(generator_path(config)), config.bf16, inversion_judges(config)]
    if config.tuning.response_weight:  # _displacements
        made_of += [_moved(config, run).name, config.stage1.weights is not None]
    key = content_hash(face.frames, config.tuning, config.encoder.inversion, made_of)[:8]
    results = run.results.parent / config.stage2.name if config.stage2.name else run.results
    return results / "stage2" / f"{face.name.replace('/', '_')}-{key}" / "tuned.safetensors"


def load_tuned_for(face: Face, config: Config, run: Run) -> tuple[Any, Path | None]:
    """The generator for a face and the tuned file it comes from, as tuned=auto|none|FILE says."""
    base = the_renderer(config, run)
    if config.tuned == "none":
        return base, None
    path = tuned_path(face, config, run) if config.tuned == "auto" else Path(config.tuned)
    if config.tuned == "auto" and not path.is_file():
        return base, None
    return load_tuned(path, base, file_hash(renderer_path(config, run))), path


def the_face(config: Config, run: Run) -> Face:
    """From photo=, from clip=, or a speaker of the data. Raises FaceError, VideoError, AudioError or RunError."""
    if config.photo is not None and config.clip is not None:
        raise RunError("photo= and clip= both name a face: give one of them.")
    if config.photo is not None:
        return _face_of_photos(Path(config.photo), config, run)
    if config.clip is not None:
        return _face_of_video(Path(config.clip), config, run)
    return _face_of_data(config, run)


def _face_of_photos(path: Path, config: Config, run: Run) -> Face:
    """Of a photo, or of several of one person; the identity frame is the one whose lips are closest together."""
    detector = the_detector(config.data, str(run.device))
    photos = [align_photo(read_photo(file), detector, file) for file in _pictures(path)]
    frames = np.stack([photo.crop for photo in photos])
    inverter = Inverter(config, run)
    some = uniform_frames(len(frames), config.encoder.inversion.person_frames)
    w_NLD = inverter(frames, inverter.person_offset(frames[some]))
    neutral = int(aperture(np.stack([photo.landmarks for photo in photos])).argmin())
    name = path.resolve().name if path.is_dir() else path.stem
    return Face(name, frames, w_NLD, frames[neutral], w_NLD[neutral])


def _pictures(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise VideoError(
            f"photo {path} is a folder without a picture; put JPEG or PNG files there, or name one"
        )
    return files


def _face_of_video(path: Path, config: Config, run: Run) -> Face:
    detector = the_detector(config.data, str(run.device))
    clip = prepare_clip(path, detector, path.stem, path.stem, path.stem, "unseen", config.prepare)
    reference = reference_frame(clip, config.displacement)
    chosen = uniform_frames(len(clip), config.tuning.max_frames)
    frames = np.asarray(clip.frames[[*chosen, reference]])
    inverter = Inverter(config, run)
    offset_LD = inverter.person_offset(portrait_frames(clip, config))
    w_NLD = inverter(frames, offset_LD)
    own = None
    if config.adapt.enabled:  # the codes of every frame cost minutes
        own = own_speech(clip, inverter(clip.frames, offset_LD), len(clip), w_NLD[-1])
    return Face(path.stem, frames[:-1], w_NLD[:-1], frames[-1], w_NLD[-1], own=own)


def _face_of_data(config: Config, run: Run) -> Face:
    latents = invert_frames(config, run)
    manifest = read_manifest(latents)
    entry, only = tuning_clip(manifest.ok(), config)
    clip = FrameClip.load(run.data / manifest.notes["prepared"] / entry.file)
    codes = LatentClip.load(latents / entry.file)
    used = fitted_frames(len(clip), config) if only else len(clip)
    reference = reference_frame(clip, config.displacement, used)
    chosen = uniform_frames(used, config.tuning.max_frames)
    w_TLD = codes.w.astype(np.float32)
    return Face(
        name=entry.speaker,
        frames=np.asarray(clip.frames[chosen]),
        w=w_TLD[chosen],
        neutral=np.asarray(clip.frames[reference]),
        w_ref=w_TLD[reference],
        clip=entry.name,
        used=used,
        ref_index=reference,
        speech=Waveform(clip.waveform[samples_of_frames(used) :]) if only else None,
        own=own_speech(clip, w_TLD, used, w_TLD[reference]),
    )


def tuning_clip(entries: list[ClipEntry], config: Config) -> tuple[ClipEntry, bool]:
    """The clip to tune on, and whether it is the speaker's only one (configs.schema.TargetConfig)."""
    speakers = list(dict.fromkeys(e.speaker for e in entries))
    unseen = [e.speaker for e in entries if e.split == "unseen"]
    speaker = config.target.speaker or (unseen or speakers)[0]
    if speaker not in speakers:
        raise RunError(
            f"target.speaker={speaker} has no usable clip; the speakers are {', '.join(speakers)}."
        )
    return portrait_clip(entries, speaker)


def _displacements(face: Face, config: Config, run: Run) -> np.ndarray | None:
    """Offsets that speech makes, for tuning.response_weight (off: none are needed); other people's where stage 1 comes
    from a file, since then the face's own training clips are scored."""
    if not config.tuning.response_weight:
        return None
    latents = _moved(config, run)
    training = read_manifest(latents).ok("train")
    if config.stage1.weights is not None:
        training = [e for e in training if e.speaker != face.name]
    if not training:
        raise RunError(
            "tuning.response_weight needs displacements, but there is no training clip to take them from: set it to 0."
        )
    clips = [LatentClip.load(latents / e.file) for e in training[:: max(1, len(training) // 16)]]
    return np.concatenate([clip.w[::8].astype(np.float32) - clip.w_ref for clip in clips])


def _moved(config: Config, run: Run) -> Path:
    """The codes that stage 1 learns from: of one's own clips some frames are scored later and must not be seen here."""
    return invert_frames(*stage1_run(config, run))


def _before_after(face: Face, base: Any, tuned: Tuned) -> np.ndarray:
    """Truth, base and tuned generator side by side, for up to four of the frames."""
    some = uniform_frames(len(tuned.chosen), 4)
    true = [face.frames[tuned.chosen[i]] for i in some]
    made = [render(generator, tuned.pivots[some]) for generator in (base, tuned.generator)]
    return np.concatenate(list(side_by_side(true, *made, size=true[0].shape[0])), axis=0)
