"""Scores the pair of files with one name in two folders, and records for report.json how they were read.

A file that cannot be scored as it is gets a status and a reason; a missing or unreadable prediction is scored as black.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from audio.timing import FPS
from audio.waveform import AudioError
from encoders.footage.video_reader import VideoError, VideoInfo, iter_frames, probe, read_audio
from metrics.scoring.reencoding import REENCODED, reencoded_file
from metrics.scoring.row_accumulator import Judges
from metrics.scoring.score_unpaired import score_unpaired
from metrics.scoring.score_videos import PairOptions, PairResult, score_pair

FileRecord = dict[str, Any]  # one entry of report.json's "files"


@dataclass(frozen=True)
class VideoPair:
    """The files of one relative name. speaker: the first sub-folder, or the name itself."""

    name: str
    speaker: str
    reference: Path | None
    prediction: Path | None


class Prediction:
    """Iterates over the frames of the method's video, then repeats the last frame endlessly. Where no frame can be read,
    yields None endlessly and stores the reason in `error`.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.info: VideoInfo | None = None
        self.error: str | None = None if path else "there is no prediction of this name"
        self.read = 0  # frames decoded so far

    def frames(self) -> Iterator[np.ndarray]:
        """The frames up to the end or the error."""
        try:
            if self.path is not None:
                self.info = probe(self.path)
                for frame in iter_frames(self.path):
                    self.read += 1
                    yield frame
        except (VideoError, FFmpegError) as error:
            self.error = str(error)

    def __iter__(self) -> Iterator[np.ndarray | None]:
        last = None
        for last in self.frames():
            yield last
        if self.error:
            last = None
        while True:
            yield last


def score_files(
    pair: VideoPair, method: str, judges: Judges, options: PairOptions
) -> tuple[FileRecord, PairResult | None]:
    """The record of one name and its scores; None if there is no usable truth."""
    record: FileRecord = {"name": pair.name, "status": "scored", "reason": None, "notes": []}
    if pair.reference is None:
        return record | {"status": "extra", "reason": "there is no reference of this name"}, None
    try:
        info = probe(pair.reference)
        record |= {"reference": _properties(info)}
        _note_format(record, "reference", info)
        prediction = Prediction(pair.prediction)
        sounds = _sound(record, pair.reference, info), None
        if options.unpaired:
            sounds = sounds[0], _own_sound(record, pair.prediction)
        result = _score(pair, prediction, method, judges, options, *sounds)
        if options.reencode and prediction.read and not prediction.error:
            with reencoded_file(Prediction(pair.prediction).frames()) as path:
                only = replace(options, controls=False)
                again = _score(pair, Prediction(path), REENCODED, judges, only, *sounds)
            result.scores.append(again.scores[0])
            result.features |= again.features
    except (VideoError, ValueError) as error:
        return record | {"status": "bad_reference", "reason": str(error)}, None
    if prediction.info is not None:
        record |= {"prediction": _properties(prediction.info)}
        _note_format(record, "prediction", prediction.info)
    _note_result(record, prediction, result, options)
    return record, result


def _score(
    pair: VideoPair,
    prediction: Prediction,
    row: str,
    judges: Judges,
    options: PairOptions,
    true_sound: np.ndarray | None,
    sound: np.ndarray | None,
) -> PairResult:
    """The scores of one prediction; sound: its own, for options.unpaired."""
    assert pair.reference is not None
    place, frames = (row, pair.name, pair.speaker), iter_frames(pair.reference)
    if options.unpaired:
        return score_unpaired(*place, frames, prediction.frames(), judges, options, true_sound, sound)
    return score_pair(*place, frames, iter(prediction), judges, options, sound=true_sound)


def expected_frames(path: Path) -> int:
    """Number of frames at 25 fps by the file's header; 0 if it cannot be read."""
    try:
        return max(1, round(probe(path).duration * FPS))
    except VideoError:
        return 0


def remarks(record: Mapping[str, Any]) -> list[str]:
    """The notes of a record, preceded by the reason if the file was not scored without changes."""
    return [*([record["reason"]] if record.get("reason") else []), *record.get("notes", [])]


def _properties(info: VideoInfo) -> dict[str, Any]:
    return asdict(info) | {"start": float(info.start)}


def _note_format(record: FileRecord, what: str, info: VideoInfo) -> None:
    if abs(info.fps - FPS) > 0.01:
        record["notes"].append(f"the {what} has {info.fps:.3g} frames per second, read at {FPS}")
    if info.rotation:
        record["notes"].append(f"the {what} is turned by {info.rotation} degrees, as its header says")
    if not info.has_audio:
        record["notes"].append(f"the {what} has no sound")


def _note_result(
    record: FileRecord, prediction: Prediction, result: PairResult, options: PairOptions
) -> None:
    """Fills the counts of frames, the status, and the notes that follow from the scores."""
    notes, frames = record["notes"], result.scores[0].n_frames
    frames += 0 if options.unpaired else result.left_out
    record |= {"frames": frames, "frames_black": result.black, "frames_left_out": result.left_out}
    record |= {"frames_without_truth": result.unknown, "frames_held": 0}
    if prediction.path is None:
        record |= {"status": "missing", "reason": prediction.error}
    elif prediction.error:
        record |= {"status": "unreadable", "reason": prediction.error}
    elif result.other_shape:
        sizes = [
            f"{record[side]['width']} x {record[side]['height']}" for side in ("prediction", "reference")
        ]
        reason = f"the prediction is {sizes[0]} px and the reference {sizes[1]}: crop both in the same way"
        record |= {"status": "other_shape", "reason": reason}
    elif not options.unpaired:
        record["frames_held"] = held = max(0, frames - prediction.read)
        surplus = round(prediction.info.duration * FPS) - frames if prediction.info else 0
        if held:
            notes.append(f"the prediction is {held} frames shorter; its last picture is repeated")
        if surplus > 0:
            notes.append(f"the prediction is {surplus} frames longer; these are not scored")
    detected = result.scores[0].figures["detection_rate"] or 0.0
    if detected < 1 and record["status"] == "scored":
        notes.append(f"no face is found in {1 - detected:.1%} of the prediction's frames")
    if result.left_out:
        notes.append(f"{result.left_out} frames before the truth's first face are left out")
    if result.unknown:
        notes.append(f"no face is found in {result.unknown} frames of the truth")


def _sound(record: FileRecord, path: Path, info: VideoInfo, what: str = "reference") -> np.ndarray | None:
    """A video's sound (S,), 16 kHz from its first image on; None if there is none that can be read, with a note."""
    if not info.has_audio:
        return None
    try:
        return read_audio(path).samples
    except (VideoError, AudioError) as error:
        record["notes"].append(f"the sound of the {what} cannot be used: {error}")
        return None


def _own_sound(record: FileRecord, prediction: Path | None) -> np.ndarray | None:
    """The prediction's sound; None without one. A prediction that cannot be read is noted where its frames are."""
    try:
        return None if prediction is None else _sound(record, prediction, probe(prediction), "prediction")
    except VideoError:
        return None
