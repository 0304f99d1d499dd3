"""Start-up of the launchers: packages that only some stages need are imported by these stages, and the config is composed
once.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.core import runtime

ROOT = Path(__file__).parents[2]
# Each of them takes a tenth of a second to two seconds.
HEAVY = (
    *(
        "cv2",
        "face_alignment",
        "gradio",
        "lightning_fabric",
        "matplotlib",
        "pandas",
        "scipy.fft",
        "scipy.ndimage",
    ),
    *(
        "skimage.metrics._structural_similarity",
        "sklearn",
        "tensorboard",
        "torch._dynamo",
        "torchvision",
        "transformers",
    ),
)


def loaded_by(code: str) -> set[str]:
    """The heavy modules that a new process has imported after running `code`."""
    code = f"import sys\nsys.argv = ['generate.py', '--help']\n{code}\nprint('HEAVY', *sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_launchers_and_their_help_import_no_heavy_package():
    launchers = sorted(f"scripts.{path.stem}" for path in (ROOT / "scripts").glob("*.py"))
    code = f"import {', '.join(launchers)}\nscripts.generate.launch(scripts.generate.generate_alone)"
    assert loaded_by(code) == set()


def test_doctor_imports_no_heavy_package():
    code = "sys.argv = ['doctor.py']\nimport scripts.doctor as d\nd.launch(d.doctor, computes=False)"
    assert loaded_by(code) == set()


def test_a_command_line_is_composed_once(monkeypatch, tmp_path):
    composed, received = [], []
    compose = runtime.compose
    monkeypatch.setattr(runtime, "compose", lambda words: composed.append(words) or compose(words))
    monkeypatch.setattr("sys.argv", ["script.py", f"results_dir={tmp_path}", "wav=a [1]=b.wav", "device=cpu"])
    runtime.launch(lambda config, run: received.append((config.wav, run.results)))
    assert received == [("a [1]=b.wav", tmp_path / "demo")] and len(composed) == 1


def test_a_sweep_runs_every_value(monkeypatch, tmp_path):
    received = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["script.py", "-m", "seed=3,4", f"results_dir={tmp_path}", "device=cpu"])
    runtime.launch(lambda config, run: received.append((config.seed, run.results.name)))
    assert received == [(3, "demo-0"), (4, "demo-1")]


def test_help_shows_the_purpose_the_groups_and_the_settings_of_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["script.py", "experiment=smoke", "--help"])
    monkeypatch.setattr(sys.modules["__main__"], "__doc__", "python scripts/script.py\n\nDoes a thing.\n")
    runtime.launch(lambda config, run: pytest.fail("--help runs no stage"))
    printed = capsys.readouterr().out
    assert printed.startswith("python scripts/script.py\n\nDoes a thing.\n")
    assert "\n  trajectory=gru|paper_lstm\n" in printed and "\nname: smoke\n" in printed
