"""The person to animate: from a photo, from several photos, from a video, or a speaker of the data."""

from pathlib import Path

import numpy as np

from audio.timing import samples_of_frames
from audio.waveform import Waveform
from configs.schema import Config
from encoders.footage.file_names import legible
from encoders.footage.prepare import align_photo, prepare_clip, read_photo
from encoders.footage.video_reader import VideoError
from encoders.geometry import aperture
from encoders.manifest import ClipEntry
from scripts.core.networks import build_detector
from scripts.core.runtime import Run, RunError
from scripts.stages.identity_frames import (
    Portrait,
    fitted_frames,
    portrait_clip,
    portrait_frames,
    reference_frame,
)
from scripts.stages.invert_frames import Inverter
from scripts.stages.stage_results import Face, Latents
from scripts.stages.synchronise import synchronised
from stylegan2.image_sources import is_photo
from trajectory.adapt.adaptation_data import personal_speech
from tuning.pivotal import uniform_frames


def face_of_files(config: Config, run: Run) -> Face | None:
    """The face of photo= or clip=; None if neither is given. Raises FaceError, VideoError, AudioError or RunError."""
    if config.photo is not None and config.clip is not None:
        raise RunError("photo= and clip= both name a face: give one of them.")
    if config.photo is not None:
        return _face_of_photos(Path(config.photo), config, run)
    if config.clip is not None:
        return _face_of_video(Path(config.clip), config, run)
    return None


def face_of_data(config: Config, latents: Latents) -> Face:
    """The face of target.speaker, by default of the first unseen speaker of the data."""
    entry, only = target_clip(latents.entries(), config)
    clip, codes = latents.frames(entry), latents.codes(entry)
    used = fitted_frames(len(clip), config) if only else len(clip)
    reference = reference_frame(clip, config.displacement, used)
    chosen = uniform_frames(used, config.tuning.max_frames)
    w_TLD = codes.w.astype(np.float32)
    return Face(
        name=entry.speaker,
        frames=np.asarray(clip.frames[chosen]),
        landmarks=clip.landmarks[chosen],
        w=w_TLD[chosen],
        neutral=np.asarray(clip.frames[reference]),
        w_ref=w_TLD[reference],
        clip=entry.name,
        used=used,
        ref_index=reference,
        speech=Waveform(clip.waveform[samples_of_frames(used) :]) if only else None,
        own=personal_speech(clip, w_TLD, used, w_TLD[reference]),
    )


def target_clip(entries: list[ClipEntry], config: Config) -> tuple[ClipEntry, bool]:
    """The clip that stage 2 tunes on, and whether it is the speaker's only one (configs.schema.TargetConfig)."""
    speakers = list(dict.fromkeys(e.speaker for e in entries))
    unseen = [e.speaker for e in entries if e.split == "unseen"]
    speaker = config.target.speaker or (unseen or speakers)[0]
    if speaker not in speakers:
        raise RunError(
            f"target.speaker={speaker} has no usable clip; the speakers are {', '.join(speakers)}."
        )
    return portrait_clip(entries, speaker)


def _face_of_photos(path: Path, config: Config, run: Run) -> Face:
    """The face of one photo, or of a folder of photos of one person; the identity frame is the photo whose lips are
    closest together.
    """
    detector = build_detector(config.data, str(run.device))
    files = _photo_files(path)
    photos = [align_photo(read_photo(file), detector, file) for file in files]
    for file, photo in zip(files, photos, strict=True):
        if photo.turned:
            run.say(f"{file} is turned by {photo.turned} degrees counterclockwise: its face is upright then")
    frames = np.stack([photo.crop for photo in photos])
    landmarks = np.stack([photo.landmarks for photo in photos])
    inverter = Inverter(config, run)
    fitted = uniform_frames(len(frames), config.encoder.inversion.person.frames)
    w_NLD = inverter(frames, inverter.person_offset(Portrait(frames[fitted], landmarks[fitted])))
    neutral = int(aperture(landmarks).argmin())
    name = legible(path.resolve().name if path.is_dir() else path.stem)
    return Face(name, frames, landmarks, w_NLD, frames[neutral], w_NLD[neutral])


def _photo_files(path: Path) -> list[Path]:
    """The photo, or those of a folder."""
    if not path.is_dir():
        return [path]
    files = sorted(filter(is_photo, path.iterdir()))
    if not files:
        raise VideoError(
            f"photo {path} is a folder without a picture; put JPEG or PNG files there, or name one"
        )
    return files


def _face_of_video(path: Path, config: Config, run: Run) -> Face:
    detector = build_detector(config.data, str(run.device))
    name = legible(path.stem)
    clip = prepare_clip(path, detector, name, name, name, "unseen", config.prepare)
    if clip.reading:
        run.say(f"{path}: {clip.reading}")
    if config.adapt.enabled:  # only adaptation uses the clip's sound
        clip = synchronised(clip, config.prepare, run)
    reference = reference_frame(clip, config.displacement)
    chosen = uniform_frames(len(clip), config.tuning.max_frames)
    frames = np.asarray(clip.frames[[*chosen, reference]])
    inverter = Inverter(config, run)
    offset_LD = inverter.person_offset(portrait_frames(clip, config))
    w_NLD = inverter(frames, offset_LD)
    own = None
    if config.adapt.enabled:  # only adaptation needs the codes of all frames, which take minutes
        own = personal_speech(clip, inverter(clip.frames, offset_LD), len(clip), w_NLD[-1])
    offset = None if offset_LD is None else offset_LD.cpu().numpy()
    return Face(name, frames[:-1], clip.landmarks[chosen], w_NLD[:-1], frames[-1], w_NLD[-1], offset, own=own)
