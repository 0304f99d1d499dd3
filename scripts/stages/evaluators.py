"""Builds the judges of a config, and hashes the weight files that they were loaded from."""

from pathlib import Path

import torch

from configs.schema import Config, MetricsConfig
from encoders.features.identity import MODEL, DlibIdentity, arcface_or_none, arcface_path
from encoders.features.perceptual import load_perceptual, trunk_path
from encoders.features.sface import sface_or_none, sface_path
from encoders.footage.faces import dlib_model_path
from metrics.measures.fid import load_inception
from metrics.measures.fvd import load_i3d
from metrics.measures.sync_distance import judge_path, load_judge
from metrics.scoring.row_accumulator import Judges
from scripts.core.networks import build_detector
from stylegan2.public.catalogue import path_of
from stylegan2.weights import file_hash


def build_judges(config: Config, device: torch.device | str = "cpu", two_folders: bool = False) -> Judges:
    """All judges of a config. two_folders: the distances of metrics.nets instead of the one perceptual distance."""
    metrics = config.metrics
    inception, no_inception = load_inception(device=device) if metrics.fid else (None, "metrics.fid=false")
    i3d, no_i3d = load_i3d(device=device) if metrics.fvd else (None, "metrics.fvd=false")
    sface, no_sface = sface_or_none()
    arcface, no_arcface = arcface_or_none(device=device)
    sync, absent = load_judge(metrics.sync, metrics.sync_weights, device)
    reasons = {**absent, "sface": no_sface, "csim_arcface": no_arcface}
    columns = distance_columns(metrics) if two_folders else {}
    return Judges(
        detector=build_detector(config.data, str(device)),
        perceptual=None if two_folders else load_perceptual(metrics.net, metrics.perceptual).to(device),
        identity=DlibIdentity(),
        sface=sface,
        arcface=arcface,
        sync=sync,
        inception=inception,
        no_inception=no_inception,
        i3d=i3d,
        no_i3d=no_i3d,
        distances={
            name: load_perceptual(net, family).to(device)  # type: ignore[arg-type]
            for name, (family, net) in columns.items()
        },
        absent={column: reason for column, reason in reasons.items() if reason},
        perceptual_size=metrics.perceptual_size,
        device=str(device),
        legacy=metrics.legacy,
    )


def distance_columns(metrics: MetricsConfig) -> dict[str, tuple[str, str]]:
    """Column -> (family, net): LPIPS, or ST-LPIPS if LPIPS's weights are not on this machine."""
    columns = {}
    for net in metrics.nets:
        family = "lpips" if trunk_path(net).is_file() else "st-lpips"
        columns[f"{family.replace('-', '_')}_{net}"] = (family, net)
    return columns


def judge_hashes(config: Config, judges: Judges) -> dict[str, str]:
    """sha256 of the judges' weight files (those of LPIPS and ST-LPIPS are identified by the packages' versions)."""
    files: dict[str, Path | None] = {
        "identity": dlib_model_path(MODEL) if judges.identity is not None else None,
        "sface": sface_path() if judges.sface is not None else None,
        "arcface": arcface_path() if judges.arcface is not None else None,
        "landmarks": dlib_model_path() if config.data.detector == "dlib" else None,
        "inception": path_of("inception_fid") if judges.inception is not None else None,
        "i3d": path_of("i3d_fvd") if judges.i3d is not None else None,
        "sync": judge_path(judges.sync, config.metrics.sync_weights),
    }
    return {name: file_hash(path) for name, path in files.items() if path is not None}
