"""The videos of a data set, the speaker of each, and the split into training, validation and test clips."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv"}


class CorpusError(ValueError):
    """A data set that cannot be used: no folder, no video, or a named speaker who is not in it."""


@dataclass(frozen=True)
class SourceVideo:
    """One video of the data, with its clip name, speaker, sentence and split."""

    path: Path
    name: str
    speaker: str
    sentence: str
    split: str


@dataclass
class DataConfig:
    """The data set, and its split into training, validation and test clips."""

    # "embedded": synthetic speakers, built when absent. "folder": every video under `root`; its first sub-folder names
    # the speaker, and a video directly in `root` is a speaker of its own.
    kind: Literal["embedded", "folder"] = "embedded"
    # Folder of videos, for kind="folder" only.
    root: str | None = None
    # Finds faces and their 68 landmarks. dlib's weights come with a package; face-alignment downloads its own.
    detector: Literal["dlib", "face-alignment"] = "dlib"
    # Share of a training speaker's clips held out for validation (convention).
    validation: float = 0.1
    # Share of a training speaker's clips held out for the test split "seen" (convention).
    seen: float = 0.1
    # Share of the speakers that training never uses: the test split "unseen" (convention).
    unseen: float = 0.2
    # Names of the speakers of the split "unseen", instead of the share `unseen`. Empty: drawn with `seed`.
    unseen_speakers: tuple[str, ...] = ()
    # Names of speakers all of whose clips are for validation, besides the share `validation`.
    validation_speakers: tuple[str, ...] = ()
    # Seed of the random split.
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind == "folder" and not self.root:
            raise ValueError("data=folder needs data.root=FOLDER, the folder that holds the videos.")
        if self.kind == "embedded" and self.root:
            raise ValueError(f"data.root={self.root} is ignored with data=embedded: add data=folder.")
        if (
            min(self.validation, self.seen, self.unseen) < 0
            or max(self.validation + self.seen, self.unseen) >= 1
        ):
            raise ValueError("data.validation + data.seen and data.unseen must lie in [0, 1).")
        if both := set(self.unseen_speakers) & set(self.validation_speakers):
            raise ValueError(
                f"{', '.join(sorted(both))}: both in data.unseen_speakers and validation_speakers."
            )


def folder_videos(data: DataConfig) -> list[SourceVideo]:
    """Every video under data.root, with its speaker (the first sub-folder) and split."""
    root = Path(str(data.root))
    if not root.is_dir():
        raise CorpusError(f"data.root={root} is not a folder; give the folder that holds the videos.")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        raise CorpusError(f"{root} holds no video ({', '.join(sorted(VIDEOS))}); check data.root.")
    stems = [path.relative_to(root).with_suffix("").as_posix() for path in files]
    names = [
        path.relative_to(root).as_posix() if stems.count(stem) > 1 else stem
        for path, stem in zip(files, stems, strict=True)
    ]
    speakers = [name.split("/")[0] for name in names]
    splits = assign_splits(speakers, data)
    return [
        SourceVideo(path, name, speaker, name.removeprefix(f"{speaker}/"), split)
        for path, name, speaker, split in zip(files, names, speakers, splits, strict=True)
    ]


def assign_splits(speakers: list[str], data: DataConfig) -> list[str]:
    """A split for each clip, given its speaker: all clips of some speakers are "unseen"; clips of the others are
    "train", "val" or "seen".

    Shares are rounded, but a test split with a positive share gets at least one member if there are enough, and every
    training speaker keeps at least one training clip. Raises CorpusError for a named speaker who is not in the data.
    """
    rng = np.random.default_rng(data.seed)
    names = sorted(set(speakers))
    unseen = min(max(round(data.unseen * len(names)), int(data.unseen > 0)), len(names) - 1)
    held_out = {names[i] for i in rng.permutation(len(names))[:unseen]}
    if data.unseen_speakers:
        held_out = set(data.unseen_speakers)
    fixed = dict.fromkeys(held_out, "unseen") | dict.fromkeys(data.validation_speakers, "val")
    if strangers := sorted(fixed.keys() - set(names)):
        raise CorpusError(f"{', '.join(strangers)} of the split are no speakers under data.root={data.root}.")
    splits = [fixed.get(speaker, "train") for speaker in speakers]
    for speaker in names:
        clips = [i for i, name in enumerate(speakers) if name == speaker and splits[i] == "train"]
        clips = [clips[i] for i in rng.permutation(len(clips))]
        for split, share in (("seen", data.seen), ("val", data.validation)):
            count = max(round(share * len(clips)), int(share > 0))
            for i in clips[: min(count, sum(splits[i] == "train" for i in clips) - 1)]:
                splits[i] = split
            clips = [i for i in clips if splits[i] == "train"]
    return splits
