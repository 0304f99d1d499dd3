"""A head that speaks as the sound comes, and the script that writes it to a pipe."""

import io
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from live_stage1 import live_features_config, live_stage1, write_whisper
from PIL import Image
from small_encoders import small_generator

from audio.features import extract_features
from audio.waveform import Waveform, write_wav
from scripts.core import runtime
from scripts.stages import stream
from scripts.stages.live_head import LiveHead
from stylegan2.protocol import sample_w
from stylegan2.render import render
from trajectory.model.predictor import predict, save_trajectory, shipped_stage1

ROOT = Path(__file__).resolve().parents[2]
SOUND = (0.1 * np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)  # 32 frames

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return live_features_config(write_whisper(tmp_path_factory.mktemp("whisper")))


@pytest.fixture(scope="module")
def head(features):
    generator = small_generator(32)
    model = live_stage1(features, generator.num_rows, generator.w_dim)
    return LiveHead(model, generator, sample_w(generator, 1, 0)[0].numpy())


def blocks_of(samples_S, size=1000):
    return (samples_S[k : k + size] for k in range(0, len(samples_S), size))


def test_live_frames_are_those_of_the_recording(head):
    windows = extract_features(Waveform(SOUND), head.model.features)
    w_TLD = predict(head.model, windows, head.w_ref)
    assert np.abs(np.diff(w_TLD, axis=0)).max() > 0.01
    expected = np.stack(list(render(head.generator, w_TLD)))
    images, sounds = zip(*head.frames(blocks_of(SOUND)), strict=True)
    assert np.abs(np.stack(images).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(np.concatenate(sounds)[: len(SOUND)], SOUND)


def test_sound_is_read_no_faster_than_frames_are_taken(head):
    read = 0

    def blocks():
        nonlocal read
        for block in blocks_of(SOUND, 640):
            read += 1
            yield block

    frames = head.frames(blocks())
    for k in range(10):
        next(frames)
        assert read <= k + 1 + 5  # 5 frames are the look-ahead
    frames.close()


def resident() -> int:
    """Bytes of this process that are in memory, those of torch and FFmpeg too; 0 where Linux' /proc is absent."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else 0


@pytest.mark.parametrize("frames", [300, pytest.param(15_000, marks=pytest.mark.slow)])
def test_memory_is_constant(head, frames):
    """Sound, features, stage 1, frames of a small generator, and the video; the slow one is ten minutes of speech."""
    traced, in_memory = [], []

    def blocks():
        for k in range(frames):
            if k in (frames // 3, frames - 10):
                traced.append(tracemalloc.get_traced_memory()[0])
                in_memory.append(resident())
            yield SOUND[:640]

    config: Any = SimpleNamespace(stream=SimpleNamespace(format="mp4"))
    tracemalloc.start()
    try:
        with open(os.devnull, "wb") as file:
            written, _ = stream.write_live(head, blocks(), file, config, None)  # type: ignore[arg-type]
    finally:
        tracemalloc.stop()
    assert written == frames
    assert traced[1] - traced[0] < 200_000  # less than the sound and the frames of a second
    assert in_memory[1] - in_memory[0] < 8e6  # the sound of two thirds of ten minutes is 26e6


@pytest.mark.parametrize("error", [BrokenPipeError(), KeyboardInterrupt(), runtime.Ended(143)])
def test_the_end_is_clean_whatever_it_is(head, error):
    """The closed pipe gets nothing more; after a signal the video is completed."""
    said: list[str] = []

    def blocks():
        yield from blocks_of(SOUND[:16_000])
        raise error

    file = io.BytesIO()
    config: Any = SimpleNamespace(stream=SimpleNamespace(format="mp4"))
    run: Any = SimpleNamespace(say=said.append)
    frames, _ = stream.write_live(head, blocks(), file, config, run)
    assert frames >= 20 and len(said) == 1
    with av.open(io.BytesIO(file.getvalue()), "r") as container:
        assert sum(1 for _ in container.decode(video=0)) == frames


@pytest.fixture
def inputs(tmp_path, face, features):
    """photo=, wav= and a stage 1 for the embedded generator."""
    Image.fromarray(face).save(tmp_path / "me.png")
    write_wav(tmp_path / "speech.wav", Waveform(SOUND))
    save_trajectory(live_stage1(features, 14, 512), tmp_path / "live.safetensors")
    return [
        *("device=cpu", "motion=none", "encoder=plain", f"results_dir={tmp_path}", f"photo={tmp_path / 'me.png'}"),
        f"stage1.weights={tmp_path / 'live.safetensors'}",
    ]  # fmt: skip


def test_the_script_writes_a_file_and_says_what_it_used(inputs, tmp_path, capsys):
    output = tmp_path / "out" / "video.mp4"
    words = [*inputs, f"wav={tmp_path / 'speech.wav'}", f"output={output}", "precision=32-true"]
    assert runtime.attempt(stream.stream, runtime.compose(words), computes=False) == 0
    printed = capsys.readouterr()
    assert (
        printed.out == ""
        and "precision 32-true" in printed.err
        and "look-ahead 200 ms" in printed.err
        and "32 frames" in printed.err
    )
    with av.open(str(output)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 32
    assert sorted(file.name for file in output.parent.iterdir()) == ["video.mp4", "video.mp4.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo=null"], "needs a face"),
        (["wav=null"], "There is no sound"),
        (["wav=absent.wav"], "absent.wav does not exist"),
        (["stage1.weights=null", "stage1.source=shipped"], "needs the whole clip"),
        (["stage1.weights=null", "stage1.source=data"], "needs a stage 1"),
        (["output=video.avi"], "must end in .mp4"),
        (["stream.format=raw"], "must end in .rgb or .raw"),
        (["output=null"], "Standard output is a terminal"),
        (["compose=photo"], "leave out compose="),
        (["motion=natural"], "leave out compose="),
    ],
)
def test_bad_input_gives_one_sentence(inputs, tmp_path, words, message, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("sys.__stdout__", SimpleNamespace(isatty=lambda: True))
    monkeypatch.chdir(tmp_path)
    base = [*inputs, f"wav={tmp_path / 'speech.wav'}", f"output={tmp_path / 'out' / 'video.mp4'}"]
    given = {word.split("=")[0]: word for word in [*base, *words]}
    assert runtime.attempt(stream.stream, runtime.compose(list(given.values())), computes=False) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("Error: ") and message in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["closed", "terminated", "finished"])
def test_the_pipe(face, tmp_path, end):
    """The launcher with the shipped model: samples in, mp4 out."""
    if not shipped_stage1(streaming=True).is_file():
        pytest.skip("the model for live sound is not there")
    Image.fromarray(face).save(tmp_path / "me.png")
    command = [sys.executable, str(ROOT / "scripts" / "stream.py"), f"photo={tmp_path / 'me.png'}",
               "device=cpu", "encoder=plain", f"results_dir={tmp_path}"]  # fmt: skip
    sound = (np.tile(SOUND, 4 if end == "finished" else 40) * 32767).astype("<i2").tobytes()
    source, sink = os.pipe()
    feeder = subprocess.Popen(
        [sys.executable, "-c", "import sys, os; os.write(1, sys.stdin.buffer.read())"],
        stdin=subprocess.PIPE, stdout=sink, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(sink)
    with subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(source)
        assert feeder.stdin is not None and process.stdout is not None and process.stderr is not None
        feeder.stdin.write(sound)
        feeder.stdin.close()
        video = process.stdout.read(20_000)
        if end == "closed":
            process.stdout.close()
        elif end == "terminated":
            process.send_signal(signal.SIGTERM)
        if end != "closed":
            video += process.stdout.read()
        said = process.stderr.read().decode()
        process.wait(timeout=120)
    feeder.wait()
    assert process.returncode == 0 and "Traceback" not in said and "Exception" not in said
    with av.open(io.BytesIO(video), "r") as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == 125 if end == "finished" else 5 < frames < 1250
