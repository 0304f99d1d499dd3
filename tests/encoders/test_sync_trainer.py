"""Training of the sync network: offsets of unseen clips, resuming, refused settings."""

from typing import Any

import numpy as np
import pytest
import torch

from audio.sync.lip_sync_net import LipSyncNet, SyncConfig, sound_windows
from audio.waveform import Waveform
from encoders.training.resume import TrainingError
from encoders.training.sync_trainer import SyncClip, SyncTrainConfig, SyncTrainer, accuracy

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = SyncConfig(channels=(8, 8, 8, 16), dim=16, n_mels=20)


def synthetic_clip(seed: int, frames: int = 48, config: SyncConfig = TINY) -> SyncClip:
    """A dark bar whose height follows the loudness of the sound."""
    rng = np.random.default_rng(seed)
    level = rng.random(frames)
    samples = (rng.normal(size=frames * 640) * np.repeat(0.01 + 0.3 * level**2, 640)).astype(np.float32)
    mouths = np.full((frames, 48, 48), 90, np.uint8)
    for t, open_by in enumerate((level * 10).round().astype(int)):
        mouths[t, 24 - open_by : 24 + open_by, 14:34] = 20
    return SyncClip(mouths, sound_windows(Waveform(samples), frames, config), samples)


def trainer(steps: int, **options: Any) -> SyncTrainer:
    torch.manual_seed(0)
    settings = SyncTrainConfig(steps=steps, clips=2, windows=24, save_every=5, **options)
    return SyncTrainer(LipSyncNet(TINY), [synthetic_clip(seed) for seed in range(6)], settings)


def test_a_trained_network_finds_the_offset_of_unseen_clips(tmp_path):
    training = trainer(60, augment=False, lr=5e-3)
    losses = [figures["contrastive"] for _, figures in training.train([], tmp_path)]
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    held = [synthetic_clip(100 + seed) for seed in range(5)]
    net = training.net.eval()
    for late in (0, 5, -5):
        measures = accuracy(net, held, late)
        assert measures["found"] == 1 and measures["offset"] == late


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    whole, first, second = trainer(10), trainer(10), trainer(10)
    for _ in whole.train([], tmp_path / "a"):
        pass
    for step, _ in first.train([], tmp_path / "b"):
        if step == 5:
            break
    second.load(tmp_path / "b" / "checkpoint.pt")
    for _ in second.train([synthetic_clip(9)], tmp_path / "b"):
        pass
    for a, b in zip(whole.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b)
    (tmp_path / "c.pt").write_bytes((tmp_path / "b" / "checkpoint.pt").read_bytes())
    resumed = SyncTrainer(LipSyncNet(), [synthetic_clip(1, config=SyncConfig())], SyncTrainConfig(windows=24))
    with pytest.raises(TrainingError, match=r"c\.pt is no checkpoint of this sync network"):
        resumed.load(tmp_path / "c.pt")


def test_too_short_clips_and_impossible_settings_are_refused():
    with pytest.raises(TrainingError, match=r"lower sync_train\.windows"):
        SyncTrainer(LipSyncNet(TINY), [synthetic_clip(0, 12)], SyncTrainConfig())
    with pytest.raises(ValueError, match="windows at least 2"):
        SyncTrainConfig(windows=1)
