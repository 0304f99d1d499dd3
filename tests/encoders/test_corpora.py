"""Each data set's layout, tested on a tree of empty files: files that are read, speaker, sentence, sound, and
splits.
"""

import time
from pathlib import Path

import pytest

from encoders.footage.corpora import (
    CorpusError,
    DataConfig,
    assign_splits,
    clip_names,
    folder_videos,
    missing_speakers,
    paths_under,
)
from scripts.core.runtime import RunError, compose, resolve

# data set -> files that are read: path -> (speaker, sentence, sound), and files that are not
LAYOUTS: dict[str, tuple[dict[str, tuple[str, str, str | None]], list[str]]] = {
    "grid": (
        {
            "s1/bbaf2n.mpg": ("s1", "bbaf2n", None),
            "s2/video/mpg_6000/lgazzs.mpg": ("s2", "lgazzs", "audio_25k/s2/lgazzs.wav"),
            "s3/swwp2s": ("s3", "swwp2s", "audio_25k/s3/swwp2s.wav"),  # a folder of pictures
        },
        ["s1/align/bbaf2n.align", "readme.mpg", "s1/notes.mp4"],
    ),
    "tcd_timit": (
        {
            "volunteers/01M/Clips/straightcam/sa1.mp4": ("01M", "sa1", None),
            "lipspeakers/Lipspkr1/Clips/straightcam/sx9.mp4": ("Lipspkr1", "sx9", None),
        },
        ["volunteers/01M/Clips/30degcam/sa1.mp4"],
    ),
    "hdtf": (
        {
            "RD_Radio1_000.mp4": ("RD_Radio1", "000", None),
            "videos/WDA_KatieHill_012.mp4": ("WDA_KatieHill", "012", None),
        },
        ["talk.mp4"],
    ),
    "cremad": ({"VideoFlash/1001_DFA_ANG_XX.flv": ("1001", "DFA_ANG_XX", None)}, ["VideoFlash/extra.flv"]),
    "ravdess": (
        {"Actor_01/01-01-03-01-01-01-01.mp4": ("Actor_01", "03-01-01-01", None)},
        ["Actor_01/02-01-03-01-01-01-01.mp4", "Actor_01/01-02-03-01-01-01-01.mp4"],
    ),
    "mead": (
        {
            "M003/video/front/neutral/level_1/001.mp4": (
                "M003",
                "neutral/level_1/001",
                "M003/audio/neutral/level_1/001.m4a",
            )
        },
        ["M003/video/left_30/neutral/level_1/001.mp4"],
    ),
    "voxceleb2": (
        {
            "id00012/21Uxsk56VDQ/00001.mp4": (
                "id00012",
                "21Uxsk56VDQ/00001",
                "id00012/21Uxsk56VDQ/00001.m4a",
            ),
            "dev/mp4/id00013/2-Uxsk56VDQ/00002.mp4": (
                "id00013",
                "2-Uxsk56VDQ/00002",
                "dev/aac/id00013/2-Uxsk56VDQ/00002.m4a",
            ),
        },
        [],
    ),
}


def data_of(name: str, root: Path, *words: str) -> DataConfig:
    return resolve(compose([f"data={name}", f"data.root={root}", *words])).data


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name if Path(name).suffix else root / name / "0001.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_data_set_is_read_as_its_owners_have_it(name, tmp_path):
    read, ignored = LAYOUTS[name]
    touch(tmp_path, *read, *ignored, *(sound for _, _, sound in read.values() if sound))
    videos = folder_videos(data_of(name, tmp_path))
    found = {
        v.path.relative_to(tmp_path).as_posix(): (
            v.speaker,
            v.sentence,
            v.sound and v.sound.relative_to(tmp_path).as_posix(),
        )
        for v in videos
    }
    assert found == read
    assert len({v.name for v in videos}) == len(videos)


@pytest.mark.parametrize("name", LAYOUTS)
def test_another_layout_is_refused_with_an_example(name, tmp_path):
    touch(tmp_path, "someone/clip.mp4")
    data = data_of(name, tmp_path)
    with pytest.raises(CorpusError) as error:
        folder_videos(data)
    assert data.layout in str(error.value) and "data=folder" in str(error.value)


def test_speakers_of_a_split_who_are_absent_are_named_and_the_others_used(tmp_path):
    touch(tmp_path, "s1/bbaf2n.mpg", "s1/bbaf3s.mpg", "s2/bbaf2n.mpg", "s9/bbaf2n.mpg")
    data = data_of("grid", tmp_path)
    assert {v.speaker: v.split for v in folder_videos(data)} == {
        "s1": "train",
        "s2": "unseen",
        "s9": "val",
    } | {"s1": folder_videos(data)[1].split}
    missing = missing_speakers(data, {"s1", "s2", "s9"})
    assert "s33" in missing and not {"s1", "s2", "s9"} & set(missing)


def test_a_split_by_sentences_trains_on_every_speaker(tmp_path):
    names = [f"s{n}/bbaf{digit}{adverb}.mpg" for n in (1, 2) for digit in range(10) for adverb in "anps"]
    touch(tmp_path, *names)
    data = data_of("grid", tmp_path, "data.split=sentences", "data.seen=0.1", "data.validation=0.1")
    splits = [(v.speaker, v.split) for v in folder_videos(data)]
    assert missing_speakers(data, {"s1", "s2"}) == []
    for speaker in ("s1", "s2"):
        counts = [splits.count((speaker, split)) for split in ("train", "val", "seen", "unseen")]
        assert counts == [32, 4, 4, 0]
    assert splits == [(v.speaker, v.split) for v in folder_videos(data)]


def test_a_folder_of_hidden_pictures_is_no_clip(tmp_path):
    touch(tmp_path, "s3/swwp2s/0001.jpg", "s3/swwp2s/._0001.jpg", "s3/hidden/._0001.jpg")
    data = DataConfig("folder", str(tmp_path), r"(?P<speaker>s3)/\w+")
    assert [video.name for video in folder_videos(data)] == ["s3/swwp2s"]


def test_clips_are_named_without_suffix_where_that_is_enough():
    paths = [Path(p) for p in ("a.mp4", "a.mov", "s1/a.mp4", "s1/b.x.mp4", "s1/b.y.mp4", "s2/c.mp4", "s2/c")]
    stems = [path.with_suffix("").as_posix() for path in paths]
    by_definition = [p.as_posix() if stems.count(s) > 1 else s for p, s in zip(paths, stems, strict=True)]
    assert clip_names(paths) == by_definition
    assert by_definition == ["a.mp4", "a.mov", "s1/a", "s1/b.x", "s1/b.y", "s2/c.mp4", "s2/c"]


def test_twenty_thousand_clips_and_speakers_take_less_than_a_second():
    paths = [Path(f"s{k}/clip{k}.mp4") for k in range(20_000)]
    seconds = []
    for _ in range(3):  # the shortest, because other processes on the machine can slow one down
        begin = time.process_time()
        names = clip_names(paths)
        splits = assign_splits([name.split("/")[0] for name in names], DataConfig())
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 1
    assert names == [f"s{k}/clip{k}" for k in range(20_000)]
    assert splits.count("unseen") == 4000 and splits.count("train") == 16_000  # a speaker's only clip stays


def test_folders_behind_links_are_read(tmp_path):
    touch(tmp_path, "root/s1/a.mp4", "disk/s2/b.mp4", "disk2/more/c.mp4", "pictures/0001.jpg")
    root = tmp_path / "root"
    (root / "s2").symlink_to(tmp_path / "disk/s2")
    (tmp_path / "disk/s2/inner").symlink_to(tmp_path / "disk2")
    (root / "s3").mkdir()
    (root / "s3/swwp2s").symlink_to(tmp_path / "pictures")
    names = {video.name for video in folder_videos(DataConfig(kind="folder", root=str(root)))}
    assert names == {"s1/a", "s2/b", "s2/inner/more/c"}
    (tmp_path / "root2").symlink_to(root)
    assert {v.name for v in folder_videos(DataConfig(kind="folder", root=str(tmp_path / "root2")))} == names
    pattern = r"(?P<speaker>s3)/\w+"
    assert [v.name for v in folder_videos(DataConfig("folder", str(root), pattern))] == ["s3/swwp2s"]


def test_links_that_lead_back_or_nowhere_are_passed_over(tmp_path):
    touch(tmp_path, "root/s1/a.mp4", "disk/b.mp4", "disk3/c.mp4")
    root = tmp_path / "root"
    links = {
        "root/s1/up": root,
        "root/above": tmp_path,
        "root/s1/self": root / "s1/self",
        "root/absent": tmp_path / "absent",
        "root/alias": root / "s1",  # read under its own name; twice could put one clip into two splits
        "root/disk": tmp_path / "disk",
        "disk/there": tmp_path / "disk3",
        "disk3/back": tmp_path / "disk",
        "disk3/home": root,
    }
    for link, target in links.items():
        (tmp_path / link).symlink_to(target)
    found = [path.relative_to(root).as_posix() for path in paths_under(root) if path.suffix]
    assert sorted(found) == ["disk/b.mp4", "disk/there/c.mp4", "s1/a.mp4"]


@pytest.mark.parametrize(
    ("pattern", "sound", "said"),
    [
        ("(", "", "regular expression"),
        ("s1/.*", "", "needs a group"),
        ("(?P<speaker>s1)/.*", "{take}.wav", r"\{take\}.*no group"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(pattern, sound, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        DataConfig(kind="folder", root=str(tmp_path), pattern=pattern, sound=(sound,))
    with pytest.raises(RunError, match=r"data\.root=FOLDER"):
        resolve(compose(["data=grid"]))
