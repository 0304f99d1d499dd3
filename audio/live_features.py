"""Features of live sound: the windows that `extract_features` gives the whole recording, frame by frame as the sound comes.

Memory does not grow with the duration. Shapes: K rows in a frame's window, M numbers in a row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
import torch

from audio.features import FeatureConfig, checked_encoder
from audio.timing import SAMPLES_PER_FRAME
from audio.waveform import AudioError


@dataclass(frozen=True)
class LiveFrame:
    """One video frame of live sound. window: float32 (K, M). samples: float32 (640,), its own sound."""

    window: np.ndarray
    samples: np.ndarray


def live_features(
    blocks: Iterable[np.ndarray], config: FeatureConfig, device: torch.device | str = "cpu"
) -> Iterator[LiveFrame]:
    """The frames of 16 kHz mono sound that comes in blocks of any size, float32 (S,) in [-1, 1].

    The last frame is completed with silence. A frame comes as soon as config.lookahead_ms of sound after its end are
    there, or the sound has ended. Raises AudioError for features that need the whole recording.
    """
    chunks = config.chunks
    if chunks is None:
        raise AudioError(
            "These features need the whole recording: for live sound, train stage 1 with audio=whisper_live."
        )
    encoder = checked_encoder(config, device)
    step, needed = chunks.rows * config.hop, chunks.samples
    heard = np.zeros((chunks.past + config.beyond) * config.hop, np.float32)  # the next chunk's input
    rows_RM = np.zeros((0, config.width), np.float32)
    own = np.zeros(0, np.float32)  # the sound of the frames that are not out yet
    ended = False
    silence = repeat(np.zeros(step, np.float32))
    for block in chain(blocks, [None], silence):
        if block is None:
            ended = True
            own = np.pad(own, (0, -len(own) % SAMPLES_PER_FRAME))
        else:
            heard = np.concatenate([heard, block])
            own = own if ended else np.concatenate([own, block])
        while len(heard) >= needed and (not ended or len(own)):
            rows_RM = np.concatenate([rows_RM, encoder.rows_of_chunk(heard[:needed], config.layers, chunks)])
            heard = heard[step:]
            while len(rows_RM) >= config.rows and len(own):
                yield LiveFrame(rows_RM[: config.rows], own[:SAMPLES_PER_FRAME])
                rows_RM, own = rows_RM[config.rows_per_frame :], own[SAMPLES_PER_FRAME:]
        if ended and not len(own):
            return
