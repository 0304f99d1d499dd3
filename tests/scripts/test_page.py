"""The web page: its job, and the page in a real browser."""

import importlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from audio.waveform import Waveform, write_wav
from scripts.core import runtime
from scripts.core.runtime import RunError, compose, resolve
from scripts.stages import page, page_job
from scripts.stages.page_job import Request, example_photos, make_video

ROOT = Path(__file__).resolve().parents[2]
SOUND = (0.1 * np.random.default_rng(0).standard_normal(3200)).astype(np.float32)  # 5 frames
SMALL = ["device=cpu", "encoder=plain", "stage1.source=shipped", "tuning.steps=1"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    config = resolve(compose([*SMALL, f"results_dir={tmp_path_factory.mktemp('results')}"]))
    return config, runtime.start(config, quiet=True)


@pytest.fixture
def files(face, tmp_path):
    Image.fromarray(face).save(tmp_path / "me.png")
    write_wav(tmp_path / "speech.wav", Waveform(SOUND))
    return str(tmp_path / "me.png"), str(tmp_path / "speech.wav")


def made(request, started, folder, report=lambda *_: None, show=lambda _: None):
    config, run = started
    return make_video(request, config, run, folder, report, show)


def frames_of(video):
    with av.open(str(video)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_photo_and_a_voice_become_a_video(started, files, tmp_path):
    told, seen = [], []
    request = Request(*files, tune=False)
    video = made(request, started, tmp_path / "job", lambda share, _: told.append(share), seen.append)
    frames = frames_of(video)
    assert len(frames) == len(seen) == 5 and video.parent == tmp_path / "job"
    assert np.abs(np.stack(frames).astype(int) - np.stack(seen)).mean() < 4  # what H.264 changes
    assert told == sorted(told) and told[-1] == 1 and len(told) == 2 + 5
    config, run = started
    assert config.photo is None and not list(run.results.glob("**/*.mp4"))  # nothing stays in the results


def test_tuning_changes_the_generator_and_stays_in_the_jobs_folder(started, files, tmp_path, monkeypatch):
    tuned = []
    original = page_job.train_stage2
    monkeypatch.setattr(page_job, "train_stage2", lambda *a: tuned.append(original(*a)) or tuned[-1])
    made(Request(*files), started, tmp_path / "job")
    assert tuned[0].tuned is not None and tmp_path / "job" in tuned[0].tuned.parents


def test_the_whole_photo_and_motion(started, files, tmp_path):
    photo, sound = files
    wide = np.pad(np.asarray(Image.open(photo)), ((40, 40), (100, 60), (0, 0)), mode="edge")
    Image.fromarray(wide).save(photo)
    request = Request(photo, sound, tune=False, compose="photo")
    frames = frames_of(made(request, started, tmp_path / "whole"))
    assert frames[0].shape == wide.shape
    still = Request(photo, sound, tune=False, motion=False)
    moving = Request(photo, sound, tune=False, gain=5.0)
    pictures = [
        np.stack(frames_of(made(one, started, tmp_path / str(k)))).astype(int)
        for k, one in enumerate((still, moving))
    ]
    assert np.abs(pictures[0] - pictures[1]).mean() > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photo": None}, "no face yet"),
        ({"sound": None}, "no voice yet"),
        ({"gain": 9.0}, "motion.gain"),
        ({"sound": "long"}, "at most 0.1 s"),
    ],
)
def test_what_is_missing_or_too_much_is_said(started, files, tmp_path, change, message):
    config, run = started
    if change == {"sound": "long"}:
        change, config = {}, replace(config, page=replace(config.page, max_seconds=0.1))
    request = replace(Request(*files), **change)
    with pytest.raises((RunError, ValueError), match=message):
        made(request, (config, run), tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_examples_are_people_with_a_face(started, tmp_path):
    config, run = started
    photos = example_photos(config, run, tmp_path)
    assert len(photos) == 6 and all(Image.open(photo).size == (256, 256) for photo in photos)


def test_the_page_is_for_this_computer_alone(started, tmp_path):
    settings = page.launch_settings(started[0], tmp_path)
    assert settings["server_name"] == "127.0.0.1" and not settings["share"]
    assert settings["max_file_size"] == "20mb"


def test_without_gradio_the_remedy_is_said(started, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    config, run = started
    with pytest.raises(RunError, match="pip install -e"):
        page.build_page(config, run, tmp_path)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def address(tmp_path):
    """The page, served by its launcher."""
    port = free_port()
    command = [sys.executable, str(ROOT / "scripts" / "app.py"), *SMALL, f"page.port={port}"]
    with subprocess.Popen([*command, f"results_dir={tmp_path}"]) as process:
        try:
            for _ in range(600):
                assert process.poll() is None
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}").read()
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.mark.browser
def test_in_a_browser(address, tmp_path):
    """A photo without a face shows its sentence. With a face, frames are shown while the video is made, then the video plays
    and has the words of consent beside it. docs/page.jpg is this test's picture, page.jpg in pytest's --basetemp=FOLDER.
    """
    chromium = shutil.which("chromium")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("needs Chromium and playwright")
    playwright: Any = importlib.import_module("playwright.sync_api")
    expect, sync_playwright = playwright.expect, playwright.sync_playwright

    Image.fromarray(np.full((256, 256, 3), 128, np.uint8)).save(tmp_path / "wall.png")
    write_wav(tmp_path / "speech.wav", Waveform(np.tile(SOUND, 15)))  # 3 s
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1280, "height": 1080})
        view.set_default_timeout(300_000)
        view.goto(address)
        expect(view.get_by_text("without that person's consent")).to_be_visible(timeout=60_000)
        uploads = view.locator("input[type=file]")
        uploads.nth(0).set_input_files(str(tmp_path / "wall.png"))
        uploads.nth(1).set_input_files(str(tmp_path / "speech.wav"))
        view.get_by_role("button", name="Make the video").click()
        expect(view.get_by_text("no face").first).to_be_visible(timeout=300_000)
        view.reload()
        uploads.nth(0).set_input_files(str(ROOT / "docs" / "person.jpg"))
        uploads.nth(1).set_input_files(str(tmp_path / "speech.wav"))
        view.get_by_role("button", name="Make the video").click()
        newest = view.get_by_text("Its newest frame")
        expect(newest).to_be_visible(timeout=300_000)
        video = view.locator("video")
        expect(video).to_be_visible(timeout=300_000)
        expect(newest).to_be_hidden(timeout=60_000)
        video.evaluate("v => v.play()")
        view.wait_for_function("document.querySelector('video').currentTime > 1")
        assert video.evaluate("v => v.videoWidth") == 256
        video.evaluate("v => v.pause()")
        view.screenshot(path=str(tmp_path / "page.jpg"), type="jpeg", quality=80)
        browser.close()
