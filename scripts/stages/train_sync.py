"""Trains the sync network on prepared clips -> results/<name>/sync/sync.safetensors and accuracy.json: the share of
held-out clips whose offset is found within one frame. By default on this run's clips (the embedded corpus), which are
prepared first when absent. metrics.sync_weights= takes the file.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track

from audio.sync.lip_sync_net import LipSyncNet
from configs.schema import Config
from encoders.features.mouth_crop import save_sync
from encoders.manifest import read_manifest
from encoders.records import FrameClip
from encoders.training.resume import checkpoint_to_resume
from encoders.training.sync_trainer import SyncClip, SyncTrainer, accuracy
from metrics.scoring.control_baselines import SHIFT
from scripts.core.provenance import save_provenance, write_json
from scripts.core.runtime import Run, RunError, shown
from scripts.stages.prepare_data import prepare_data
from stylegan2.weights import file_hash


def train_sync(config: Config, run: Run) -> Path:
    """Trains the sync network; returns its weight file."""
    # Clips
    settings, folder = config.sync_train, run.results / "sync"
    default = [] if settings.folders and settings.held else [prepare_data(config, run).folder]
    folders = [Path(f).expanduser() for f in settings.folders] or default
    held_folder = Path(settings.held) if settings.held else default[0]
    with run.timed("clips"):
        train, val = (_clips(folders, split, config) for split in (("train",), ("val",)))
        held = _clips([held_folder], ("seen", "unseen"), config)
    if not train or not held:
        raise RunError(
            f"There are {len(train)} clips to train on and {len(held)} held out, but both kinds are needed: check "
            "sync_train.folders and sync_train.held."
        )

    # Training
    with run.timed("sync"):
        torch.manual_seed(settings.seed)
        net = LipSyncNet(config.sync_net).to(run.device)
        trainer = SyncTrainer(net, train, settings)
        if (checkpoint := checkpoint_to_resume(config.resume, folder)) is not None:
            trainer.load(checkpoint)
        run.say(f"training the sync network into {shown(folder)} on {len(trainer.clips)} clips")
        steps = trainer.train(val, folder)
        for step, figures in track(steps, "sync", settings.steps - trainer.step, transient=True):
            if any(name.startswith("val/") for name in figures):
                run.say(
                    f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
                )

    # Accuracy on held-out clips: in sync, and with the lips delayed and advanced
    net.eval()
    late = {k: accuracy(net, held, k) for k in (0, SHIFT, -SHIFT)}
    result = {
        "held_out_clips": len(held),
        "in_sync": late[0],
        "late": {str(k): late[k] for k in (SHIFT, -SHIFT)},
    }

    # Weight file and provenance
    path, names = folder / "sync.safetensors", [f.name for f in folders]
    notes = {"licence": "as the clips'; of the embedded corpus: non-commercial research", "trained_on": names}
    save_sync(net, path, notes | {"clips": len(trainer.clips), "steps": trainer.step, **result})
    write_json(folder / "accuracy.json", result)
    weights = {"sync": file_hash(path)}
    save_provenance(folder, config, data=names, weights=weights, seconds=run.seconds)
    shares = ", ".join(
        f"{figures['found']:.2f} {f'{k:+d} frames late' if k else 'in sync'}" for k, figures in late.items()
    )
    run.say(f"wrote {shown(path)}; offset found within one frame on {len(held)} held-out clips: {shares}")
    return path


def _clips(folders: Sequence[Path], splits: tuple[str, ...], config: Config) -> list[SyncClip]:
    """The clips of these splits as mouth crops and log-mel windows, which take 2.3 kB per frame."""
    entries = [(folder, entry) for folder in folders for entry in read_manifest(folder).ok(*splits)]
    return [
        SyncClip.of(FrameClip.load(folder / entry.file), config.sync_net)
        for folder, entry in track(entries, " and ".join(splits), transient=True)
    ]
