"""Which videos of two folders belong together, reading a method's video, and what the report says of each file."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from audio.timing import FPS
from audio.waveform import AudioError
from encoders.footage.video_reader import VideoError, VideoInfo, iter_frames, probe, read_audio
from metrics.scoring.score_videos import PairResult
from scripts.core.runtime import RunError
from scripts.stages.prepare_data import VIDEOS


@dataclass(frozen=True)
class Pair:
    """One name: the truth's file, and the method's if there is one. speaker: the first sub-folder, or the name."""

    name: str
    speaker: str
    reference: Path | None
    prediction: Path | None


def matched(predictions: Path, references: Path) -> list[Pair]:
    """All names of both folders, sorted. Raises RunError."""
    made, true = (
        _videos(folder, what) for folder, what in ((predictions, "predictions"), (references, "references"))
    )
    if not true:
        raise RunError(f"references={references} holds no video.")
    if not set(made) & set(true):
        raise RunError(
            f"No video in {predictions} has the relative name of one in {references}; "
            "a prediction of s1/a.mpg must be called s1/a.mp4."
        )
    names = sorted(set(made) | set(true))
    return [Pair(name, name.split("/")[0], true.get(name), made.get(name)) for name in names]


def _videos(folder: Path, what: str) -> dict[str, Path]:
    """Relative name without suffix -> file."""
    if not folder.is_dir():
        raise RunError(f"{what}={folder} is not a folder; give the folder that holds the videos.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in VIDEOS and path.is_file() and not path.name.startswith("."):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise RunError(
                    f"{found[name]} and {path} have the same name without suffix; remove one of them."
                )
            found[name] = path
    return found


class Prediction:
    """Frames of the method's video, its last one held; None from where there is none, with the reason in `error`."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.info: VideoInfo | None = None
        self.error: str | None = None if path else "there is no prediction of this name"
        self.read = self.held = 0

    def __iter__(self) -> Iterator[np.ndarray | None]:
        last = None
        try:
            if self.path is not None:
                self.info = probe(self.path)
                for last in iter_frames(self.path):
                    self.read += 1
                    yield last
        except (VideoError, FFmpegError) as error:
            self.error, last = str(error), None
        while True:
            self.held += 1
            yield last


def expected_frames(path: Path) -> int:
    try:
        return max(1, round(probe(path).duration * FPS))
    except VideoError:
        return 0


def facts(info: VideoInfo) -> dict[str, Any]:
    return {key: value for key, value in asdict(info).items() if key != "start"} | {
        "start": float(info.start)
    }


def note_oddities(record: dict[str, Any], what: str, info: VideoInfo) -> None:
    if abs(info.fps - FPS) > 0.01:
        record["notes"].append(f"the {what} has {info.fps:.3g} frames per second, read at {FPS}")
    if info.rotation:
        record["notes"].append(f"the {what} is turned by {info.rotation} degrees, as its header says")
    if not info.has_audio:
        record["notes"].append(f"the {what} has no sound")


def note_result(record: dict[str, Any], prediction: Prediction, result: PairResult) -> None:
    frames = result.scores[0].n_frames + result.left_out
    record |= {"frames": frames, "frames_black": result.black, "frames_left_out": result.left_out}
    record |= {"frames_without_truth": result.unknown, "frames_held": 0}
    found = result.scores[0].figures["detection_rate"] or 0.0
    if prediction.path is None:
        record |= {"status": "missing", "reason": prediction.error}
    elif prediction.error:
        record |= {"status": "unreadable", "reason": prediction.error}
    elif result.other_shape and prediction.info and record["reference"]:
        sizes = [
            f"{side['width']} x {side['height']}" for side in (record["prediction"], record["reference"])
        ]
        reason = f"the prediction is {sizes[0]} px and the reference {sizes[1]}: cut both alike"
        record |= {"status": "other_shape", "reason": reason}
    else:
        record["frames_held"] = held = max(0, frames - prediction.read)
        surplus = round(prediction.info.duration * FPS) - frames if prediction.info else 0
        if held:
            record["notes"].append(f"the prediction is {held} frames shorter, its last picture is held")
        if surplus > 0:
            record["notes"].append(f"the prediction is {surplus} frames longer, they are not scored")
    if found < 1 and record["status"] == "scored":
        record["notes"].append(f"no face is found in {1 - found:.1%} of the prediction's frames")
    if result.left_out:
        record["notes"].append(f"{result.left_out} frames before the truth's first face are left out")
    if result.unknown:
        record["notes"].append(f"no face is found in {result.unknown} frames of the truth")


def sound_of(record: dict[str, Any], reference: Path, info: VideoInfo) -> np.ndarray | None:
    """The truth's sound (S,), 16 kHz from its first picture on; None if there is none that can be read, with a note."""
    if not info.has_audio:
        return None
    try:
        return read_audio(reference).samples
    except (VideoError, AudioError) as error:
        record["notes"].append(f"the sound of the reference cannot be used: {error}")
        return None
