"""Where generate writes its video, which is checked before anything is made."""

import os
from pathlib import Path
from typing import Any

import pytest

from configs.schema import Config
from scripts.core.runtime import Run, RunError
from scripts.stages.generate import output_path, read_inputs, record_path
from stylegan2.weights import atomic_path


def path_of(folder: Path, **settings: Any) -> Path:
    run = Run(folder / "results", folder, None)  # type: ignore[arg-type]
    config = Config(**settings)
    read_inputs(config, run)
    return output_path(config, run)


def refused(folder: Path, words: str, **settings: Any) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(RunError, match=words) as raised:
        path_of(folder, **settings)
    assert "\n" not in str(raised.value) and sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["videos", "videos.mp4"])
def test_an_output_that_is_a_folder(name, tmp_path):
    (tmp_path / name).mkdir()
    refused(tmp_path, f"{name} is a folder: give the video's name too", output=str(tmp_path / name))


def test_an_output_whose_record_is_a_folder(tmp_path):
    (tmp_path / "a.mp4.json").mkdir()
    refused(tmp_path, "a.mp4.json is a folder", output=str(tmp_path / "a.mp4"))


@pytest.mark.parametrize("name", ["a" * 247 + ".mp4", "new/" + "\u00e9" * 124 + ".mp4", "b" * 256 + "/a.mp4"])
def test_an_output_whose_name_is_too_long(name, tmp_path):
    refused(tmp_path, "too long for the file system", output=str(tmp_path / name))


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\U0001f600"])
def test_the_longest_names_that_are_accepted_can_be_written(letter, tmp_path):
    for length in range(1, 250):
        path = tmp_path / f"{letter * length}.mp4"
        try:
            assert path_of(tmp_path, output=str(path)) == path
        except RunError:
            break
        for file in (path, record_path(path)):
            with atomic_path(file) as temporary:
                temporary.touch()
    assert len(os.fsencode(letter)) * length > 230


def test_names_of_inputs_that_are_too_long_together(tmp_path):
    photo, wav = f"{'p' * 150}.jpg", f"{'w' * 150}.wav"
    run = Run(tmp_path / "results", tmp_path, None)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="give a shorter output=FILE"):
        read_inputs(Config(photo=photo, wav=wav), run)


def test_an_output_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    refused(tmp_path, "file is not a folder", output=str(tmp_path / "file" / "new" / "a.mp4"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_an_output_in_a_folder_that_is_not_writable(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    refused(tmp_path, "closed is not writable", output=str(tmp_path / "closed" / "new" / "a.mp4"))


def test_new_folders_and_existing_files_are_accepted(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_text("")
    for name in ("a.mp4", "new/folder/a.MOV"):
        assert path_of(tmp_path, output=str(tmp_path / name)) == tmp_path / name
    monkeypatch.chdir(tmp_path)
    assert path_of(tmp_path, output="a.mkv") == Path("a.mkv")
    assert path_of(tmp_path) == tmp_path / "results" / "generate" / "video.mp4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]
