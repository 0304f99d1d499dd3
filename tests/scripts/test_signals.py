"""A script that is ended by a signal while it writes leaves no temporary file."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from scripts.core.signals import Ended, unwind_on_signals

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from encoders.footage.video_writer import write_video
from scripts.core.runtime import launch
from stylegan2.weights import atomic_path

def frames():
    for index in range(10**6):
        if index > 200:  # the encoder has written the first ones
            time.sleep(0.01)
        yield np.zeros((64, 64, 3), np.uint8)

def stage(config, run):
    with atomic_path(config.output + ".json") as temporary:
        temporary.touch()
        write_video(config.output, frames())

launch(stage)
"""


def test_no_partial_file_is_left(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    out = tmp_path / "out"
    places = [f"results_dir={tmp_path / 'results'}", f"output={out / 'video.mp4'}", "device=cpu"]
    command = [sys.executable, str(script), *places]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            deadline = time.monotonic() + 120
            while (
                not list(out.glob(".video*.mp4")) and process.poll() is None and time.monotonic() < deadline
            ):
                time.sleep(0.02)
            assert len(list(out.iterdir())) == 2
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert said.endswith("Stopped. Finished results are kept; the same command resumes from them.\n")
    assert "Traceback" not in said and list(out.iterdir()) == []


def test_an_ignored_signal_stays_ignored():
    """nohup makes SIGHUP ignored."""
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        unwind_on_signals()
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Ended) as ended:
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 128 + signal.SIGTERM
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
