"""Whisper in chunks equals transformers' encoder on each chunk's input, and needs no other sound."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from audio.chunked_whisper import HOP, Chunks, chunk_rows, rows_of_recording

CHUNKS = Chunks(rows=6, past=10, future=4)
ROWS = 20  # of an input
SOUND = (0.1 * np.random.default_rng(0).standard_normal(50 * HOP)).astype(np.float32)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whisper():
    """An encoder whose input has as many rows as a chunk's, because the library accepts no shorter one."""
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=3, encoder_attention_heads=2, encoder_ffn_dim=32, max_source_positions=ROWS
    )
    network = WhisperEncoder(config).eval().requires_grad_(False)
    layers: Any = network.layers
    for layer in layers:  # rows depend much on one another
        layer.self_attn.v_proj.weight *= 30
    return network, transformers.WhisperFeatureExtractor()


def test_rows_equal_the_librarys_hidden_states(whisper):
    network, extractor = whisper
    sound = SOUND[: CHUNKS.samples]
    mel = extractor(sound[160:], sampling_rate=16000, return_tensors="pt", padding=False).input_features
    mel = torch.nn.functional.pad(mel, (0, 1))  # a last frame of 10 ms that no row is centred on
    with torch.no_grad():
        states = network(mel, output_hidden_states=True).hidden_states
    rows = chunk_rows(network, extractor, sound[None], CHUNKS, [0, 1, -1])[0]
    assert rows.shape == (6, 96)
    for k, layer in enumerate((0, 1, 3)):
        expected = states[layer][0, 10:16].numpy()
        np.testing.assert_allclose(rows[:, 32 * k : 32 * k + 32], expected, atol=2e-5 if layer == 0 else 0.1)


def test_layers_above_the_highest_one_are_not_computed(whisper, monkeypatch):
    network, extractor = whisper
    expected = chunk_rows(network, extractor, SOUND[None, : CHUNKS.samples], CHUNKS, [1])
    monkeypatch.setattr(network.layers[1], "forward", lambda *_: pytest.fail("layer 2 was computed"))
    rows = chunk_rows(network, extractor, SOUND[None, : CHUNKS.samples], CHUNKS, [1])
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("length", [1, 6, 13, 50])
def test_a_recording_has_the_rows_of_its_chunks(whisper, length):
    network, extractor = whisper
    rows = rows_of_recording(network, extractor, SOUND[: length * HOP], CHUNKS, [2])
    assert rows.shape == (length, 32)
    silence = np.zeros(10 * HOP, np.float32)
    padded = np.concatenate([silence, SOUND[: length * HOP], silence])
    first = chunk_rows(network, extractor, padded[None, : CHUNKS.samples], CHUNKS, [2])[0]
    np.testing.assert_allclose(rows[:6], first[:length], atol=1e-5)


def test_rows_depend_on_no_sound_beyond_the_future(whisper):
    """The second chunk is rows 6 to 11; its input ends after row 15."""
    network, extractor = whisper
    whole = rows_of_recording(network, extractor, SOUND, CHUNKS, [2])
    changed = SOUND.copy()
    changed[16 * HOP :] = 0
    rows = rows_of_recording(network, extractor, changed, CHUNKS, [2])
    np.testing.assert_allclose(rows[:12], whole[:12], atol=1e-5)
    changed[16 * HOP - 400 :] = 0
    rows = rows_of_recording(network, extractor, changed, CHUNKS, [2])
    assert np.abs(rows[6:12] - whole[6:12]).max() > 1e-3
