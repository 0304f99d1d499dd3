"""The files that photo= names."""

import pytest

from encoders.footage.video_reader import VideoError
from scripts.stages.face import _photo_files


def test_hidden_files_of_a_photo_folder_are_left_out(tmp_path):
    for name in ("b.jpg", "a.PNG", "._a.PNG", "._b.jpg", ".trash.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in _photo_files(tmp_path)] == ["a.PNG", "b.jpg"]
    assert _photo_files(tmp_path / ".trash.png") == [tmp_path / ".trash.png"]  # named by the user


def test_a_folder_of_hidden_files_only_is_refused(tmp_path):
    (tmp_path / "._a.jpg").touch()
    with pytest.raises(VideoError, match="is a folder without a picture"):
        _photo_files(tmp_path)
