"""A small stage 1 for live sound, with random weights, on a small random Whisper."""

from pathlib import Path

import numpy as np
import torch
import transformers

from audio.features import FeatureConfig
from trajectory.model.displacement import DisplacementConfig, fit_space
from trajectory.model.predictor import TrajectoryPredictor
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet


def write_whisper(folder: Path) -> str:
    """A folder with a Whisper of 2 layers of 32 numbers."""
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, vocab_size=60, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None,
    )  # fmt: skip
    transformers.WhisperModel(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return str(folder)


def live_features_config(encoder: str) -> FeatureConfig:
    """Chunks of 120 ms, from 400 ms of sound; 200 ms of look-ahead."""
    return FeatureConfig(
        kind="encoder", encoder=encoder, hop=320, dims=32, layers=(1, -1), normalise="none", context_ms=120,
        chunk_ms=120, past_ms=200, future_ms=80,
    )  # fmt: skip


def live_stage1(features: FeatureConfig, num_rows: int, w_dim: int) -> TrajectoryPredictor:
    """Displacements of a generator of this size that are large enough to be seen."""
    torch.manual_seed(0)
    d = np.random.default_rng(0).standard_normal((40, num_rows, w_dim)).astype(np.float32)
    space = fit_space(d, d, DisplacementConfig(5, 3))
    config = TrajectoryConfig(frontend="dense", bidirectional=False, audio_dim=8, hidden=8, decoder=16)
    net = TrajectoryNet(config, (features.rows, features.width), space.identity_dims, space.num_coefficients)
    torch.nn.init.normal_(net.decoder[-1].weight)  # type: ignore[arg-type]
    return TrajectoryPredictor(net, space, features).eval()
