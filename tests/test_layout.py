"""The layout of the repository: top-level entries, launchers, and imports of our packages despite installed packages of
the same name.
"""

import ast
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
LAUNCHERS = sorted(path for path in (ROOT / "scripts").glob("*.py") if path.stem != "__init__")


def tracked() -> list[str]:
    """Paths of the files tracked by git, relative to the root."""
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


def modules() -> list[Path]:
    return [path for package in sorted(PACKAGES) for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports; `from a import b` gives both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_top_level_holds_the_packages_and_the_named_files_only():
    top = {path.split("/")[0] for path in tracked()}
    files = {"pyproject.toml", "README.md", "Makefile", "LICENSE", "CHANGELOG.md"}
    unknown = {name for name in top - PACKAGES - files - {"tests", "docs"} if not name.startswith(".")}
    assert not unknown


def test_pyproject_names_every_package_and_forbids_an_upload():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {path.parent.relative_to(ROOT) for path in modules() if path.name == "__init__.py"}
    assert set(project["tool"]["setuptools"]["packages"]) == {".".join(folder.parts) for folder in folders}
    assert "Private :: Do Not Upload" in project["project"]["classifiers"]
    assert not (ROOT / "tests" / "__init__.py").exists()


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda path: path.stem)
def test_launchers_are_short_and_open_with_their_launch_line(launcher):
    text = launcher.read_text()
    assert len(text.splitlines()) <= 20
    assert text.startswith(f'"""python scripts/{launcher.name}')
    root_on_path = "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))"
    assert text.index(root_on_path) < text.index("from scripts")
    assert "\n    launch(" in text


def test_no_module_imports_a_launcher():
    launchers = {f"scripts.{path.stem}" for path in LAUNCHERS}
    importing = {str(path.relative_to(ROOT)) for path in modules() if imported(path) & launchers}
    assert not importing


@pytest.fixture(scope="module")
def python_with_fake_metrics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with all packages installed here, and another package named `metrics`."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    (site / "all.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    (site / "metrics").mkdir()
    (site / "metrics" / "__init__.py").write_text("raise ImportError('the other metrics package')\n")
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    "arguments", [["scripts/doctor.py"], ["-m", "scripts.doctor"]], ids=["script", "module"]
)
def test_our_packages_win_over_installed_namesakes(python_with_fake_metrics, arguments):
    done = subprocess.run(
        [python_with_fake_metrics, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert f"metrics      {ROOT / 'metrics'}" in done.stdout, done.stderr
    assert "the other metrics package" not in done.stderr
