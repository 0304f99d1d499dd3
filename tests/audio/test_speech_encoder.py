"""Pre-trained speech encoders as features, on small networks with random weights written by `transformers`."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from audio.features import FeatureConfig, extract_features
from audio.speech_encoder import KINDS, SpeechEncoderError, load_speech_encoder
from audio.waveform import Waveform
from encoders.content_hash import content_hash
from scripts.core.networks import with_encoder_of
from scripts.core.runtime import RunError, compose, resolve
from scripts.stages.train_stage1 import _with_encoder_hash
from trajectory.model.predictor import TrajectoryPredictor
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet


def _write(folder, kind):
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    if kind == "whisper":
        config = transformers.WhisperConfig(
            d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
            decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, vocab_size=60, pad_token_id=0,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None,
        )  # fmt: skip
        extractor = transformers.WhisperFeatureExtractor()
        model = transformers.WhisperModel(config)
    else:
        config, model = {
            "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
            "hubert": (transformers.HubertConfig, transformers.HubertModel),
            "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
        }[kind]
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
        model = model(config(**small, **convolutions))
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=KINDS)
def written(request, tmp_path_factory):
    return _write(tmp_path_factory.mktemp(request.param), request.param)


def _sound(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(16000 * seconds))).astype(np.float32)


def _config(folder, **more):
    return FeatureConfig(kind="encoder", encoder=folder, hop=320, dims=32, **more)


@pytest.mark.parametrize("frames", [1, 7, 50])
def test_every_video_frame_has_its_window(written, frames):
    features = extract_features(Waveform(_sound(frames / 25)), _config(written), frames)
    assert features.values.shape == (frames, 14, 32)
    assert np.isfinite(features.values).all() and (frames == 1 or features.values.std() > 0.1)


def test_rows_equal_the_librarys_hidden_states(tmp_path):
    folder, sound = _write(tmp_path, "wav2vec2"), _sound(0.8)
    model = transformers.Wav2Vec2Model.from_pretrained(folder).eval()
    normalised = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    with torch.no_grad():
        states = model(
            torch.from_numpy(np.pad(normalised, 40))[None], output_hidden_states=True
        ).hidden_states
    rows = load_speech_encoder(folder).rows(sound, [1])
    assert rows.shape == (40, 32)
    np.testing.assert_allclose(rows, states[1][0].numpy(), atol=1e-5)


def test_rows_of_several_layers_stand_side_by_side(tmp_path):
    encoder, sound = load_speech_encoder(_write(tmp_path, "wavlm")), _sound(0.8)
    both = encoder.rows(sound, [1, 0])
    assert both.shape == (40, 64)
    np.testing.assert_array_equal(both[:, :32], encoder.rows(sound, [1]))
    np.testing.assert_array_equal(both[:, 32:], encoder.rows(sound, [0]))


def test_several_sounds_are_joined_and_cut_apart(tmp_path):
    """Rows of the joined sound, in order, whatever their lengths; wav2vec 2.0's first layer hears 400 samples only."""
    encoder = load_speech_encoder(_write(tmp_path, "wavlm"))
    sounds = [_sound(seconds) for seconds in (3, 9.6, 8, 0.8, 19)]
    rows = encoder.rows_of_several(sounds, [0])
    assert [len(one) for one in rows] == [150, 480, 400, 40, 950]
    joined = encoder.rows(np.concatenate(sounds[:2]), [0])
    np.testing.assert_allclose(np.concatenate(rows[:2]), joined, atol=1e-6)


def test_row_is_centred_on_its_own_20_ms(tmp_path, monkeypatch):
    """The receptive field of a row, by the gradient of the convolutions: 400 samples around (i + 1/2) 320."""
    network: Any = load_speech_encoder(_write(tmp_path, "hubert")).network
    sound = torch.randn(1, 3200 + 80, requires_grad=True)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert norms
    for norm in norms:  # its receptive field is the whole clip
        monkeypatch.setattr(norm, "forward", lambda x: x)
    with torch.enable_grad():
        network.feature_extractor(sound)[0, :, 4].sum().backward()
    assert sound.grad is not None
    field = np.flatnonzero(sound.grad[0].numpy()) - 40
    assert (field.min() + field.max() + 1) / 2 == 4.5 * 320
    assert len(field) == 400


def test_whispers_input_starts_half_a_row_later(tmp_path):
    folder = _write(tmp_path, "whisper")
    encoder, sound = load_speech_encoder(folder), _sound(2)
    mel = encoder.extractor(sound[160:], sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = encoder.network(mel).last_hidden_state[0, :100]
    np.testing.assert_allclose(encoder.rows(sound, [-1]), expected.numpy(), atol=1e-5)


def test_blocks_of_a_long_sound_give_the_same_rows(tmp_path):
    encoder = load_speech_encoder(_write(tmp_path, "wavlm"))
    rows = encoder.rows(_sound(45), [0])
    assert rows.shape == (45 * 50, 32)
    sound = _sound(45)
    normalised = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    with torch.inference_mode():
        alone = encoder._encode_waveform(normalised[16 * 16000 : 44 * 16000].astype(np.float32), [0])
    np.testing.assert_allclose(rows[20 * 50 : 40 * 50], alone[4 * 50 : 24 * 50], atol=1e-5)


def test_other_weights_than_those_of_training_are_refused(tmp_path):
    folder = _write(tmp_path, "hubert")
    digest = load_speech_encoder(folder).sha256
    sound = Waveform(_sound(0.4))
    extract_features(sound, _config(folder, encoder_sha256=digest))
    with pytest.raises(SpeechEncoderError, match="another network"):
        extract_features(sound, _config(folder, encoder_sha256="0" * 64))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"dims": 33}, "audio.dims=32"), ({"layers": (3,)}, "2 layers"), ({"layers": (1, -4)}, "2 layers")],
)
def test_wrong_width_or_layer_is_named(tmp_path, change, words):
    config = FeatureConfig(
        **{"kind": "encoder", "encoder": _write(tmp_path, "wav2vec2"), "hop": 320, "dims": 32} | change
    )
    with pytest.raises(SpeechEncoderError, match=words):
        extract_features(Waveform(_sound(0.4)), config)


def test_the_hash_covers_the_weights_and_the_preparation_of_the_sound(tmp_path):
    """If a wav2vec 2.0 file lacks the mask embedding of pre-training, `transformers` makes a random one; it is neither
    used nor hashed.
    """
    folder = Path(_write(tmp_path, "wav2vec2"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["masked_spec_embed"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    digests = []
    for _ in range(2):
        load_speech_encoder.cache_clear()
        digests.append(load_speech_encoder(str(folder)).sha256)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    load_speech_encoder.cache_clear()
    assert digests[0] == digests[1] != load_speech_encoder(str(folder)).sha256


@pytest.mark.parametrize("harm", ["cut", "lacks"])
def test_damaged_weights_are_refused_in_one_sentence(tmp_path, harm):
    folder = Path(_write(tmp_path, "hubert"))
    file = folder / "model.safetensors"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        tensors = load_file(file)
        del tensors["encoder.layer_norm.weight"]
        save_file(tensors, file, {"format": "pt"})
    with pytest.raises(SpeechEncoderError, match="cannot be read" if harm == "cut" else "lacks 1 tensors"):
        load_speech_encoder(str(folder))


def test_other_networks_are_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SpeechEncoderError, match="cannot be read"):
        load_speech_encoder(str(tmp_path / "nothing"))
    transformers.BertConfig(hidden_size=8, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(SpeechEncoderError, match="'bert'"):
        load_speech_encoder(str(tmp_path))
    with pytest.raises(SpeechEncoderError, match="is empty"):
        load_speech_encoder("")


def test_stage_1_stores_the_weights_hash_and_requires_the_dense_front_end(tmp_path):
    folder = _write(tmp_path, "wav2vec2")
    words = ["audio=wav2vec2", f"audio.encoder={folder}", "audio.dims=32", "audio.layers=[2]"]
    with pytest.raises(RunError, match="frontend=dense"):
        _with_encoder_hash(resolve(compose(words)))
    with pytest.raises(SpeechEncoderError, match=r"audio\.dims=32"):  # reported before a corpus is inverted
        _with_encoder_hash(resolve(compose([*words[:2], "trajectory.frontend=dense"])))
    config = _with_encoder_hash(resolve(compose([*words, "trajectory.frontend=dense"])))
    assert config.audio.encoder_sha256 == load_speech_encoder(folder).sha256
    assert config.audio.rows == 14
    elsewhere = replace(config, audio=replace(config.audio, encoder="elsewhere"))
    assert content_hash(elsewhere.audio) == content_hash(config.audio)
    model = cast(TrajectoryPredictor, SimpleNamespace(features=config.audio))
    assert with_encoder_of(elsewhere, model).features.encoder == "elsewhere"


def test_the_dense_front_end_takes_rows_of_any_width():
    net = TrajectoryNet(TrajectoryConfig(frontend="dense"), (14, 32), 4, 3).eval()
    assert net.encode_audio(torch.randn(2, 5, 14, 32)).shape == (2, 5, 128)
