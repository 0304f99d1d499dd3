"""Whisper's rows in chunks: each chunk is computed from the sound around it alone, past_ms before it to future_ms after it.

A recording and live sound get the same rows, because both are computed by `chunk_rows`. Whisper was trained on 30 s of
sound; here its input is as long as past, chunk and future together, and its positions are counted from the input's start.

Shapes: N chunks, S samples at 16 kHz, F log-mel frames of 10 ms, R rows of 20 ms, M numbers in a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

HOP = 320  # samples per row
LEAD = 160  # samples cut from the start of an input, so that row i is centred on sample (i + 1/2) HOP
BATCH = 16  # chunks of a recording that are computed at once
FLOOR = 8.0  # powers of ten below the input's loudest band at which Whisper clamps its log-mel


@dataclass(frozen=True)
class Chunks:
    """Numbers of rows: of one chunk, and of the sound before and after it that it is computed from."""

    rows: int
    past: int
    future: int

    @property
    def samples(self) -> int:
        """Samples of one chunk's input."""
        return (self.past + self.rows + self.future) * HOP


@torch.inference_mode()
def chunk_rows(
    network: Any, extractor: Any, inputs_NS: np.ndarray, chunks: Chunks, layers: Sequence[int]
) -> np.ndarray:
    """Rows of N chunks, float32 (N, chunks.rows, M len(layers)): those of these layers side by side.

    network: a WhisperEncoder of `transformers`, and extractor its WhisperFeatureExtractor. inputs_NS: the sound of each,
    (N, chunks.samples). layers: 0 before the first transformer layer, -1 the last; higher ones are not computed.
    """
    device = network.conv1.weight.device
    mel_NFM = _log_mel(torch.tensor(inputs_NS[:, LEAD:], dtype=torch.float32), extractor).to(device)
    x = functional.gelu(network.conv1(mel_NFM))
    x = functional.gelu(network.conv2(x)).transpose(1, 2)
    x = x + network.embed_positions.weight[: x.shape[1]]
    count = len(network.layers)
    wanted = [layer % (count + 1) for layer in layers]
    states = {0: x}
    for k in range(1, max(wanted) + 1):
        x = network.layers[k - 1](x, None)
        states[k] = x if k < count else network.layer_norm(x)
    rows = torch.cat([states[k] for k in wanted], dim=-1)
    return rows[:, chunks.past : chunks.past + chunks.rows].cpu().numpy()


def rows_of_recording(
    network: Any, extractor: Any, samples_S: np.ndarray, chunks: Chunks, layers: Sequence[int]
) -> np.ndarray:
    """(S / HOP, M len(layers)) float32 for S a multiple of HOP; the sound before and after is taken to be silent."""
    total = len(samples_S) // HOP
    count = -(-total // chunks.rows)
    after = count * chunks.rows - total + chunks.future
    padded = np.pad(samples_S.astype(np.float32), (chunks.past * HOP, after * HOP))
    inputs_NS = np.lib.stride_tricks.sliding_window_view(padded, chunks.samples)[:: chunks.rows * HOP][:count]
    parts = [
        chunk_rows(network, extractor, inputs_NS[i : i + BATCH], chunks, layers)
        for i in range(0, count, BATCH)
    ]
    return np.concatenate(parts).reshape(count * chunks.rows, -1)[:total]


def _log_mel(samples_NS: Tensor, extractor: Any) -> Tensor:
    """What the extractor makes of each input, (N, mel bands, F), without its padding to 30 s."""
    filters = torch.from_numpy(np.asarray(extractor.mel_filters, np.float32)).T
    window = torch.hann_window(extractor.n_fft)
    spectrum = torch.stft(
        samples_NS, extractor.n_fft, extractor.hop_length, window=window, return_complex=True
    )
    power = (filters @ spectrum[..., :-1].abs().square()).clamp(min=1e-10).log10()
    loudest = power.amax((-2, -1), keepdim=True)
    return (torch.maximum(power, loudest - FLOOR) + 4) / 4
