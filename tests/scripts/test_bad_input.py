"""Wrong input gives one sentence, exit code 1, no traceback and no output file; file names may contain any
character.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from audio.waveform import Waveform, write_wav
from encoders.footage.file_names import legible
from encoders.footage.video_writer import write_video
from encoders.records import FrameClip
from scripts.core import runtime
from scripts.stages.prepare_data import prepare_data
from scripts.stages.standalone import generate_alone

ROOT = Path(__file__).parents[2]
SOUND = Waveform(np.random.default_rng(0).uniform(-0.1, 0.1, 16000).astype(np.float32))  # one second of video


@pytest.fixture
def good_wav(tmp_path: Path) -> Path:
    write_wav(tmp_path / "good.wav", SOUND)
    return tmp_path / "good.wav"


def no_face(folder: Path, face: np.ndarray) -> list[str]:
    Image.fromarray(np.full((300, 300, 3), 90, np.uint8)).save(folder / "wall.png")
    return [f"photo={folder / 'wall.png'}"]


def two_faces(folder: Path, face: np.ndarray) -> list[str]:
    Image.fromarray(np.concatenate([face, face], axis=1)).save(folder / "pair.png")
    return [f"photo={folder / 'pair.png'}"]


def no_audio_track(folder: Path, face: np.ndarray) -> list[str]:
    write_video(folder / "silent.mp4", [face] * 12)
    return [f"clip={folder / 'silent.mp4'}"]


def empty_wav(folder: Path, face: np.ndarray) -> list[str]:
    (folder / "empty.wav").touch()
    return [f"wav={folder / 'empty.wav'}"]


def empty_video(folder: Path, face: np.ndarray) -> list[str]:
    (folder / "empty.mp4").touch()
    return [f"clip={folder / 'empty.mp4'}"]


def truncated_mp4(folder: Path, face: np.ndarray) -> list[str]:
    write_video(folder / "cut.mp4", [face] * 12, SOUND)
    data = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    return [f"clip={folder / 'cut.mp4'}"]


def text_named_wav(folder: Path, face: np.ndarray) -> list[str]:
    (folder / "text.wav").write_text("this is not sound\n" * 50)
    return [f"wav={folder / 'text.wav'}"]


def text_named_jpg(folder: Path, face: np.ndarray) -> list[str]:
    (folder / "text.jpg").write_text("this is not a picture\n" * 50)
    return [f"photo={folder / 'text.jpg'}"]


def short_wav(folder: Path, face: np.ndarray) -> list[str]:
    soundfile.write(folder / "short.wav", np.zeros(800, np.float32), 16000)
    return [f"wav={folder / 'short.wav'}"]


def nan_wav(folder: Path, face: np.ndarray) -> list[str]:
    samples = np.zeros(16000, np.float32)
    samples[5000] = np.nan
    soundfile.write(folder / "nan.wav", samples, 16000, subtype="FLOAT")
    return [f"wav={folder / 'nan.wav'}"]


def missing_wav(folder: Path, face: np.ndarray) -> list[str]:
    return [f"wav={folder / 'nowhere [1].wav'}"]


def missing_photo(folder: Path, face: np.ndarray) -> list[str]:
    return [f"photo={folder / 'nowhere.jpg'}"]


def folder_without_photos(folder: Path, face: np.ndarray) -> list[str]:
    (folder / "photos").mkdir()
    return [f"photo={folder / 'photos'}"]


def missing_generator(folder: Path, face: np.ndarray) -> list[str]:
    return [f"generator.weights={folder / 'none.safetensors'}", *_photo(folder, face)]


def missing_encoder(folder: Path, face: np.ndarray) -> list[str]:
    return [f"encoder.weights={folder / 'none.safetensors'}", *_photo(folder, face)]


def missing_stage1(folder: Path, face: np.ndarray) -> list[str]:
    return [f"stage1.weights={folder / 'none.safetensors'}", *_photo(folder, face)]


def missing_tuned(folder: Path, face: np.ndarray) -> list[str]:
    return [
        f"stage1.weights={folder / 'none.safetensors'}",
        f"tuned={folder / 'none.safetensors'}",
        *_photo(folder, face),
    ]


def weights_of_another_kind(folder: Path, face: np.ndarray) -> list[str]:
    return ["encoder.weights=stylegan2/assets/generator_256.safetensors", *_photo(folder, face)]


def output_without_suffix(folder: Path, face: np.ndarray) -> list[str]:
    return [f"output={folder / 'video'}"]


def frame_without_clip(folder: Path, face: np.ndarray) -> list[str]:
    return ["compose=frame", *_photo(folder, face)]


def _photo(folder: Path, face: np.ndarray) -> list[str]:
    Image.fromarray(face).save(folder / "face.png")
    return [f"photo={folder / 'face.png'}"]


CASES: list[tuple[Callable[[Path, np.ndarray], list[str]], str]] = [
    (no_face, "no face"),
    (two_faces, "2 faces"),
    (no_audio_track, "no audio track"),
    (empty_wav, "empty"),
    (empty_video, "empty"),
    (truncated_mp4, "cut off"),
    (text_named_wav, "cannot be read as sound"),
    (text_named_jpg, "not a picture"),
    (short_wav, "too short"),
    (nan_wav, "NaN"),
    (missing_wav, "does not exist"),
    (missing_photo, "does not exist"),
    (folder_without_photos, "without a picture"),
    (missing_generator, "no weight file"),
    (missing_encoder, "no weight file"),
    (missing_stage1, "no weight file"),
    (missing_tuned, "no weight file"),
    (weights_of_another_kind, "not an encoder"),
    (output_without_suffix, "must end in"),
    (frame_without_clip, "give clip=VIDEO"),
]


@pytest.mark.parametrize(("make", "words"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_wrong_input_gives_one_sentence_and_no_output(
    make, words, tmp_path, good_wav, face, capsys, monkeypatch
):
    monkeypatch.chdir(ROOT)
    output = tmp_path / "out.mp4"
    bad_arguments = make(tmp_path, face)
    arguments = [
        f"wav={good_wav}",
        f"output={output}",
        *bad_arguments,
    ]  # later arguments override earlier ones
    arguments = list({argument.split("=")[0]: argument for argument in arguments}.values())
    folders = [f"results_dir={tmp_path / 'results'}", f"data_dir={tmp_path / 'data'}", "device=cpu"]
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert runtime.attempt(generate_alone, runtime.compose([*arguments, *folders])) == 1
    error = capsys.readouterr().err
    assert (
        error.startswith("Error: ") and error.count("\n") == 1 and words in error and "Traceback" not in error
    )
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_bad_clip_is_recorded_and_the_others_are_prepared(clip_folder, tmp_path, capsys):
    folder = tmp_path / "batch"
    shutil.copytree(clip_folder, folder)
    (folder / "broken.mp4").write_bytes(b"")
    arguments = [
        f"data.root={folder}",
        f"results_dir={tmp_path / 'r'}",
        f"data_dir={tmp_path / 'd'}",
        "workers=1",
    ]
    assert runtime.attempt(prepare_data, runtime.compose(["data=folder", *arguments])) == 0
    printed = capsys.readouterr().out
    assert "rejected broken: video file" in printed and "is empty" in printed


def test_names_that_are_no_utf8_are_prepared_and_rejected(clip_folder, tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"batch \xe9")
    (folder / "ann").mkdir(parents=True)
    video = next(clip_folder.rglob("*.mp4"))
    shutil.copy(video, folder / "ann" / os.fsdecode(b"caf\xe9.mp4"))
    (folder / os.fsdecode(b"cut \xe9.mp4")).write_bytes(b"")
    arguments = [f"results_dir={tmp_path / 'r'}", f"data_dir={tmp_path / 'd'}", "workers=1", "data.unseen=0"]
    raw = runtime.compose(["data=folder", f"data.root={folder}", *arguments])
    config = runtime.resolve(raw)
    prepared = prepare_data(config, runtime.start(config))
    assert "rejected cut %E9: video file" in capsys.readouterr().out
    (clip,) = prepared.manifest.ok()
    assert (clip.name, clip.speaker, clip.sentence) == ("ann/caf%E9", "ann", "caf%E9")
    assert FrameClip.load(prepared.folder / clip.file).source == "caf%E9.mp4"
    assert str(folder) in prepared.manifest.rejected()[0].reason  # read back as it is


def test_a_results_folder_that_safetensors_cannot_open_is_refused(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"r\xe9")
    assert runtime.attempt(prepare_data, runtime.compose([f"results_dir={folder}"])) == 1
    assert "is not UTF-8" in capsys.readouterr().err and not folder.exists()


def test_a_batch_without_any_usable_clip_fails(tmp_path, capsys):
    folder = tmp_path / "batch"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"")
    arguments = [f"data.root={folder}", f"results_dir={tmp_path / 'r'}", f"data_dir={tmp_path / 'd'}"]
    assert runtime.attempt(prepare_data, runtime.compose(["data=folder", *arguments])) == 1
    assert "None of the 1 videos can be used" in capsys.readouterr().err
    assert not list((tmp_path / "d").rglob("manifest.json"))


def test_a_missing_file_whose_name_has_special_characters_from_a_shell(tmp_path):
    """Runs the script in a separate process to test Hydra's parsing, the message and the exit code."""
    wav = tmp_path / os.fsdecode(b"no such [file], a=b 'x' \xe9.wav")  # Latin-1
    command = [sys.executable, "scripts/generate.py", f"wav={wav}", f"output={tmp_path / 'o.mp4'}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip().splitlines()[-1]
        == f"Error: sound file {legible(str(wav))} does not exist; check the path"
    )
    assert "Traceback" not in done.stderr and not (tmp_path / "o.mp4").exists()


def test_an_unknown_setting_is_named(tmp_path):
    command = [sys.executable, "scripts/doctor.py", "trajectory.hiden=5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "hiden" in done.stderr and "Traceback" not in done.stderr
