"""The networks that judge, built from a config; which of them are absent, and the hashes of their files."""

from pathlib import Path

import torch

from configs.schema import Config, MetricsConfig
from encoders.features.identity import MODEL, DlibIdentity, arcface_or_none, arcface_path
from encoders.features.perceptual import load_perceptual, trunk_path
from encoders.footage.faces import dlib_model_path
from metrics.measures.fid import inception_path, load_inception
from metrics.measures.sync_distance import judge_path, load_judge
from metrics.scoring.clip_score import Judges
from scripts.core.networks import the_detector
from stylegan2.weights import file_hash


def the_judges(config: Config, device: torch.device | str = "cpu", two_folders: bool = False) -> Judges:
    """All judges of a config. two_folders: the distances of metrics.nets instead of the one perceptual distance."""
    metrics = config.metrics
    inception, missing = load_inception(device=device) if metrics.fid else (None, "metrics.fid=false")
    arcface, no_arcface = arcface_or_none(device=device)
    sync, absent = load_judge(metrics.sync, metrics.sync_weights, device)
    distances = {}
    if two_folders:
        distances = {
            name: load_perceptual(net, family).to(device)  # type: ignore[arg-type]
            for name, (family, net) in distance_columns(metrics).items()
        }
    return Judges(
        detector=the_detector(config.data, str(device)),
        perceptual=None if two_folders else load_perceptual(metrics.net, metrics.perceptual).to(device),
        identity=DlibIdentity(),
        arcface=arcface,
        sync=sync,
        inception=inception,
        no_inception=missing,
        distances=distances,
        absent=absent | ({"csim_arcface": no_arcface} if no_arcface else {}),
        perceptual_size=metrics.perceptual_size,
        device=str(device),
        legacy=metrics.legacy,
    )


def distance_columns(metrics: MetricsConfig) -> dict[str, tuple[str, str]]:
    """Column -> (family, net): LPIPS, or ST-LPIPS where LPIPS has no weights on this machine."""
    found = {}
    for net in metrics.nets:
        family = "lpips" if trunk_path(net).is_file() else "st-lpips"
        found[f"{family.replace('-', '_')}_{net}"] = (family, net)
    return found


def judge_hashes(config: Config, judges: Judges) -> dict[str, str]:
    """sha256 of the judges' weight files that lie on disk (those of LPIPS and ST-LPIPS go with their versions)."""
    files: dict[str, Path] = {}
    if judges.identity is not None:
        files["identity"] = dlib_model_path(MODEL)
    if judges.arcface is not None:
        files["arcface"] = arcface_path()
    if config.data.detector == "dlib":
        files["landmarks"] = dlib_model_path()
    if judges.inception is not None:
        files["inception"] = inception_path()
    if path := judge_path(judges.sync, config.metrics.sync_weights):
        files["sync"] = path
    return {name: file_hash(path) for name, path in files.items()}
