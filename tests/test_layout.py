"""The house: what stands at the top, and that our packages win over installed ones of the same name."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"audio", "configs", "encoders", "metrics", "scripts", "stylegan2", "trajectory", "tuning"}


def tracked() -> list[str]:
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


def test_top_level_is_as_designed():
    top = {path.split("/")[0] for path in tracked()}
    files = {"pyproject.toml", "README.md", "Makefile", "LICENSE", "CHANGELOG.md"}
    unknown = {name for name in top - PACKAGES - files - {"tests", "docs"} if not name.startswith(".")}
    assert not unknown


def test_packages_are_named_exactly():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == PACKAGES
    assert "Private :: Do Not Upload" in project["project"]["classifiers"]
    assert not (ROOT / "tests" / "__init__.py").exists()


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_open_with_their_launch_line(script):
    text = script.read_text()
    if "launch(" not in text or script.stem == "runtime":
        pytest.skip("not a script")
    assert text.startswith(f'"""python scripts/{script.name}')
    first_import = "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))"
    assert text.index(first_import) < text.index("from configs")


@pytest.fixture(scope="module")
def python_with_fake_metrics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with everything that is installed here, and somebody else's `metrics` package."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    (site / "all.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    (site / "metrics").mkdir()
    (site / "metrics" / "__init__.py").write_text("raise ImportError('somebody else')\n")
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    "how", [["scripts/doctor.py"], ["-m", "scripts.stages.doctor"]], ids=["script", "module"]
)
def test_our_packages_win_over_installed_namesakes(python_with_fake_metrics, how):
    done = subprocess.run(
        [python_with_fake_metrics, *how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert f"metrics      {ROOT / 'metrics'}" in done.stdout, done.stderr
    assert "somebody else" not in done.stderr
