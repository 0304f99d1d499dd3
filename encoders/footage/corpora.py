"""The videos of a data set, the speaker of each, and the split into training, validation and test clips."""

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal

import numpy as np

from encoders.footage.file_names import legible
from encoders.footage.picture_folder import is_picture

VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv"}


class CorpusError(ValueError):
    """A data set that cannot be used: its folder is missing, or no video matches its layout."""


@dataclass(frozen=True)
class SourceVideo:
    """One video of the data, with its clip name, speaker, sentence and split."""

    path: Path  # a video file, or a folder of pictures
    name: str
    speaker: str
    sentence: str
    split: str
    sound: Path | None = None  # sound file, for videos without sound


@dataclass
class DataConfig:
    """The data set, its speakers, and its split into training, validation and test clips.

    Each supported research data set is one file in configs/data that sets these fields.
    """

    # "embedded": synthetic speakers, built when absent. "folder": the videos under `root`.
    kind: Literal["embedded", "folder"] = "embedded"
    # Folder of videos, for kind="folder" only.
    root: str | None = None
    # Regular expression for the whole path of a video relative to `root`, with / between folders; other files are left
    # out. Its group `speaker` names the speaker, its group `sentence` the sentence (None: the path without the speaker).
    # None: every video; the first sub-folder names the speaker, and a video directly in `root` is a speaker of its own.
    pattern: str | None = None
    # An example of such a path, for messages.
    layout: str = ""
    # Paths of sound files for videos without sound, relative to `root`; {speaker} and the other groups of `pattern` are
    # filled in, and the first existing file is used.
    sound: tuple[str, ...] = ()
    # "unseen_speakers": speakers are held out with all their clips (unseen_speakers, or the share `unseen`).
    # "sentences": only some clips of each speaker are held out, so that all speakers occur in training.
    split: Literal["unseen_speakers", "sentences"] = "unseen_speakers"
    # Whether all clips of a speaker were recorded with the same offset between sound and picture, so that it is estimated
    # from all of them together (prepare.sync=auto).
    one_sound_offset: bool = False
    # Adds the embedded corpus (corpus.*) to the videos under `root`: more faces and voices for training.
    with_embedded: bool = False
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
        known = {"speaker", "sentence"}
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern).groupindex
            except re.error as error:
                raise ValueError(f"data.pattern is not a regular expression ({error}).") from error
            if "speaker" not in groups:
                raise ValueError("data.pattern needs a group (?P<speaker>...) that names the speaker.")
            known |= set(groups)
        used = {field for template in self.sound for _, field, _, _ in Formatter().parse(template) if field}
        if self.pattern is not None and (unknown := sorted(used - known)):
            raise ValueError(f"data.sound names {{{unknown[0]}}}, which is no group of data.pattern.")
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
    """The videos under data.root that data.pattern describes, with speaker, split and sound. Raises CorpusError."""
    root = Path(str(data.root))
    if not root.is_dir():
        raise CorpusError(f"data.root={root} is not a folder; give the folder that holds the videos.")
    paths = sorted(path for path in paths_under(root) if _is_clip(path, data.pattern is not None))
    if not paths:
        raise CorpusError(f"{root} holds no video ({', '.join(sorted(VIDEOS))}); check data.root.")
    names = clip_names([path.relative_to(root) for path in paths])
    if data.pattern is None:
        groups = [{"speaker": name.split("/")[0], "sentence": None} for name in names]
    else:
        matches = [re.fullmatch(data.pattern, path.relative_to(root).as_posix()) for path in paths]
        kept = [i for i, match in enumerate(matches) if match is not None]
        if not kept:
            example = f", such as {data.layout}" if data.layout else ""
            raise CorpusError(
                f"None of the {len(paths)} videos under {root} has a path that data.pattern describes{example}; check "
                "data.root, or give data=folder."
            )
        paths, names = [paths[i] for i in kept], [names[i] for i in kept]
        groups = [match.groupdict() for match in matches if match is not None]
    videos = []
    splits = assign_splits([group["speaker"] for group in groups], data)
    for path, name, group, split in zip(paths, names, groups, splits, strict=True):
        speaker = group["speaker"]
        sentence = group.get("sentence") or name.removeprefix(f"{speaker}/")
        sound = _sound_file(root, data.sound, group | {"sentence": sentence})
        videos.append(SourceVideo(path, legible(name), legible(speaker), legible(sentence), split, sound))
    return videos


def clip_names(paths: list[Path]) -> list[str]:
    """Relative path -> name of the clip: without suffix, unless several paths differ only in the suffix."""
    stems = [path.with_suffix("").as_posix() for path in paths]
    count = Counter(stems)
    return [path.as_posix() if count[stem] > 1 else stem for path, stem in zip(paths, stems, strict=True)]


def paths_under(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """All files and folders under a folder, also those behind symbolic links to folders, in no order.

    A link is not followed if its folder is read anyway under its own name, or holds the link itself, which would never
    end. above: the real folders that contain this one, when a link led to it.
    """
    above = (*above, folder.resolve())
    found = []
    for place, folders, files in os.walk(folder):  # lists links to folders, but does not enter them
        found += [Path(place, name) for name in (*folders, *files)]
        for link in (Path(place, name) for name in folders):
            if link.is_symlink():
                target = link.resolve()
                if not any(target.is_relative_to(real) or real.is_relative_to(target) for real in above):
                    found += paths_under(link, above)
    return found


def missing_speakers(data: DataConfig, speakers: set[str]) -> list[str]:
    """Speakers that the split by speakers names and the data lack, sorted; a split by sentences uses no names."""
    if data.split == "sentences":
        return []
    return sorted({*data.unseen_speakers, *data.validation_speakers} - speakers)


def assign_splits(speakers: list[str], data: DataConfig) -> list[str]:
    """A split for each clip, given its speaker: all clips of some speakers are "unseen"; clips of the others are
    "train", "val" or "seen".

    Shares are rounded, but a test split with a positive share gets at least one member if there are enough, and every
    training speaker keeps at least one training clip. Named speakers who are not in the data are left out
    (missing_speakers).
    """
    rng = np.random.default_rng(data.seed)
    names = sorted(set(speakers))
    by_sentence = data.split == "sentences"
    unseen = min(max(round(data.unseen * len(names)), int(data.unseen > 0)), len(names) - 1)
    held_out = {names[i] for i in rng.permutation(len(names))[:unseen]}
    if data.unseen_speakers:
        held_out = set(data.unseen_speakers)
    fixed = dict.fromkeys(held_out, "unseen") | dict.fromkeys(data.validation_speakers, "val")
    splits = ["train" if by_sentence else fixed.get(speaker, "train") for speaker in speakers]
    clips_of = defaultdict(list)
    for i, speaker in enumerate(speakers):
        clips_of[speaker].append(i)
    for speaker in names:
        clips = [i for i in clips_of[speaker] if splits[i] == "train"]
        clips = [clips[i] for i in rng.permutation(len(clips))]
        for split, share in (("seen", data.seen), ("val", data.validation)):
            count = max(round(share * len(clips)), int(share > 0))
            for i in clips[: min(count, sum(splits[i] == "train" for i in clips) - 1)]:
                splits[i] = split
            clips = [i for i in clips if splits[i] == "train"]
    return splits


def _is_clip(path: Path, pictures: bool) -> bool:
    """Whether a path is a video, or, with `pictures`, a folder that holds pictures."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return pictures and any(map(is_picture, path.iterdir()))
    return path.suffix.lower() in VIDEOS


def _sound_file(root: Path, templates: tuple[str, ...], groups: dict[str, str]) -> Path | None:
    """The first file of data.sound that exists; a group that matched nothing is empty."""
    values = defaultdict(str, {name: text or "" for name, text in groups.items()})
    files = (root / template.format_map(values) for template in templates)
    return next((file for file in files if file.is_file()), None)
