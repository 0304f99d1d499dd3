"""manifest.json: the clips of a folder, and the rejected ones with the reasons."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from encoders.jpeg_frames import ClipError
from encoders.records import check_split
from stylegan2.weights import atomic_path


@dataclass(frozen=True)
class ClipEntry:
    """One clip of the manifest. Raises ClipError for inconsistent values."""

    name: str
    file: str  # relative to the manifest; empty for a rejected clip
    speaker: str
    sentence: str
    split: str
    n_frames: int  # at 25 fps; 0 for a rejected clip
    status: str = "ok"  # or "rejected"
    reason: str = ""  # reason for the rejection
    figures: dict[str, float] = field(default_factory=dict)  # measures of the clip (footage/clip_figures.py)
    reading: str = ""  # what was done to the decoded video (FrameClip.reading)

    def __post_init__(self) -> None:
        if self.status not in ("ok", "rejected"):
            raise ClipError(f"clip {self.name} has the status {self.status!r}, expected 'ok' or 'rejected'")
        if not isinstance(self.n_frames, int) or self.n_frames < 0:
            raise ClipError(f"clip {self.name} has {self.n_frames!r} frames, expected a whole number")
        relative = PurePosixPath(self.file)
        if relative.is_absolute() or ".." in relative.parts or (self.status == "ok" and not self.file):
            raise ClipError(f"clip {self.name}: {self.file!r} is not a file beside the manifest")
        check_split(self.name, self.split)


@dataclass(frozen=True)
class Manifest:
    """All clips of a folder, and `notes`: further JSON values, such as the settings the folder was made with."""

    clips: tuple[ClipEntry, ...]
    notes: dict[str, Any] = field(default_factory=dict)

    def ok(self, *splits: str) -> list[ClipEntry]:
        """The usable clips, only those of the given splits if any are given."""
        return [clip for clip in self.clips if clip.status == "ok" and (not splits or clip.split in splits)]

    def rejected(self) -> list[ClipEntry]:
        return [clip for clip in self.clips if clip.status == "rejected"]


def _manifest_path(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" else path / "manifest.json"


def write_manifest(path: str | Path, manifest: Manifest) -> Path:
    """path: the folder or the .json file. Returns the file."""
    path = _manifest_path(path)
    content = {**manifest.notes, "clips": [dataclasses.asdict(clip) for clip in manifest.clips]}
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=1, ensure_ascii=False) + "\n",
            encoding="utf-8",
            errors="backslashreplace",
        )
    return path


def read_manifest(path: str | Path) -> Manifest:
    """path: the folder or the .json file. Raises ClipError."""
    path = _manifest_path(path)
    if not path.is_file():
        raise ClipError(f"there is no manifest {path}; run the stage that makes this folder first")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        clips = tuple(ClipEntry(**entry) for entry in content.pop("clips"))
    except ClipError as error:
        raise ClipError(f"manifest {path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ClipError(
            f"manifest {path} is damaged or of another kind ({error}); make the folder again"
        ) from error
    return Manifest(clips, content)
