"""Which files of a folder are training images."""

from PIL import Image

from stylegan2.image_sources import ImageFolder


def test_hidden_files_are_left_out(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "._photo.png").write_bytes(b"\0\5\x16\7 of macOS")
    assert [path.name for path in ImageFolder(tmp_path, 8, 1).paths] == ["photo.png"]
