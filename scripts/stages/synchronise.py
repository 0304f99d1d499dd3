"""Removes the offset between the sound and the picture of prepared clips (prepare.sync)."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from audio.features import extract_features
from audio.sync.sound_offset import SoundOffset, lag_correlations, shifted, sound_offset
from audio.timing import SAMPLES_PER_FRAME
from audio.waveform import Waveform
from encoders.footage.prepare import PrepareConfig
from encoders.geometry import aperture
from encoders.manifest import ClipEntry
from encoders.records import FrameClip
from scripts.core.provenance import write_json
from scripts.core.runtime import Run
from trajectory.model.predictor import TrajectoryPredictor, load_trajectory, shipped_stage1

OFFSETS = "offsets.json"


def synchronise(
    entries: Sequence[ClipEntry], folder: Path, prepare: PrepareConfig, together: bool, run: Run
) -> list[ClipEntry]:
    """Moves the sound in the files of the clips whose offset is certain. Returns the entries, to which the figures
    sync_offset (frames) and sync_certainty are added where an offset was estimated.

    together: one offset for all clips of a speaker. The offsets are written to offsets.json before any file is changed, so
    that a stopped run goes on with the same ones.
    """
    found = _offsets(entries, folder, prepare, together, run)
    changed = []
    for entry in entries:
        if (offset := found.get(entry.name)) is None:
            changed.append(entry)
            continue
        if run.first:
            _move_sound(folder / entry.file, offset.frames if offset.certain else 0.0)
        figures = {"sync_offset": round(offset.frames, 2), "sync_certainty": round(offset.certainty, 3)}
        changed.append(replace(entry, figures=entry.figures | figures))
    run.barrier()
    if found:
        frames = [offset.frames for offset in found.values() if offset.certain]
        extent = f", by {min(frames):+.1f} to {max(frames):+.1f} frames" if frames else ""
        run.say(f"sound moved to fit the picture in {len(frames)} of {len(entries)} clips{extent}")
    return changed


def synchronised(clip: FrameClip, prepare: PrepareConfig, run: Run) -> FrameClip:
    """One clip with its sound moved by prepare.sync."""
    if prepare.sync == "none":
        return clip
    if prepare.stated_offset is not None:
        return moved(clip, prepare.stated_offset)
    curve = lag_curve(clip, load_trajectory(shipped_stage1(), run.device))
    offset = None if curve is None else sound_offset([curve])
    if offset is None or not offset.certain:
        run.say(f"the offset of sound and picture in {clip.name} is uncertain; the sound is left as it is")
        return clip
    run.say(
        f"the sound of {clip.name} is {offset.frames:+.1f} frames late (certainty {offset.certainty:.2f}); corrected"
    )
    return moved(clip, offset.frames)


def lag_curve(clip: FrameClip, model: TrajectoryPredictor) -> np.ndarray | None:
    """Correlations of the lips' opening that the model predicts from the sound with that of the landmarks
    (audio.sync.sound_offset.lag_correlations), for the mean identity.
    """
    features = extract_features(Waveform(clip.waveform), model.features, len(clip), model.gain.device)
    return lag_correlations(
        predicted_opening(model, features.values), aperture(clip.landmarks), clip.detected
    )


@torch.no_grad()
def predicted_opening(model: TrajectoryPredictor, values_TKM: np.ndarray) -> np.ndarray:
    """The lips' opening (T,) up to a constant and a factor, for the mean identity."""
    if model.lip_axis is None:
        raise ValueError("this stage-1 model has no lip_axis")
    values = torch.from_numpy(values_TKM)[None].to(model.gain.device)
    identity_NP = torch.zeros(1, model.space.identity_dims, device=model.gain.device)
    coefficients_NTC, _ = model.net(values, identity_NP)
    return (coefficients_NTC[0] @ model.lip_axis).double().cpu().numpy()


def moved(clip: FrameClip, frames: float) -> FrameClip:
    """The clip with its sound moved so that in total it has been moved earlier by `frames`."""
    shift = round(frames * SAMPLES_PER_FRAME)
    if shift == clip.sound_shift:
        return clip
    waveform = shifted(clip.waveform, (shift - clip.sound_shift) / SAMPLES_PER_FRAME)
    return replace(clip, waveform=waveform, sound_shift=shift)


def _move_sound(path: Path, frames: float) -> None:
    clip = FrameClip.load(path)
    if (changed := moved(clip, frames)) is not clip:
        changed.save(path)


def _offsets(
    entries: Sequence[ClipEntry], folder: Path, prepare: PrepareConfig, together: bool, run: Run
) -> dict[str, SoundOffset]:
    """The offset of each clip by its name; a clip in which it cannot be estimated is left out."""
    if prepare.sync == "none":
        return {}
    if prepare.stated_offset is not None:
        return {entry.name: SoundOffset(prepare.stated_offset, 1.0, 1.0) for entry in entries}
    file = folder / OFFSETS
    if not file.is_file() and run.first:
        write_json(
            file, {name: vars(offset) for name, offset in _estimated(entries, folder, together, run).items()}
        )
    run.barrier()
    return {
        name: SoundOffset(**values) for name, values in json.loads(file.read_text(encoding="utf-8")).items()
    }


def _estimated(
    entries: Sequence[ClipEntry], folder: Path, together: bool, run: Run
) -> dict[str, SoundOffset]:
    model = load_trajectory(shipped_stage1(), run.device)
    curves = {}
    for entry in track(entries, "offset of the sound", transient=True):
        if (curve := lag_curve(FrameClip.load(folder / entry.file), model)) is not None:
            curves[entry.name] = curve
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.speaker if together else entry.name].append(entry.name)
    found = {}
    for names in groups.values():
        if known := [curves[name] for name in names if name in curves]:
            found |= dict.fromkeys(names, sound_offset(known))
    return found
