"""The mouth crop that is the input of the sync network, and the network's weight file.

The crop is a fixed part of the aligned face, so frames without a detected face need no special treatment.
Shapes: S = 48 px.
"""

from pathlib import Path

import numpy as np
import torch

from audio.sync import lip_sync_net
from audio.sync.lip_sync_net import SIDE, LipSyncNet, config_of
from encoders.footage.align import CROP_SIZE
from stylegan2.weights import WeightsError, fill, read_weights, save_weights

EMBEDDED = Path(lip_sync_net.__file__).parents[1] / "assets" / "sync_embedded.safetensors"
MOUTH_PLACE = (slice(144, 240), slice(80, 176))  # rows, columns of the face crop: 96 px around the mouth
GREY = np.array([0.299, 0.587, 0.114])  # luma of RGB (BT.601)


def mouth_picture(face_crop: np.ndarray) -> np.ndarray:
    """Face crop uint8 (256, 256, 3) -> grey mouth uint8 (S, S), the mean of 2 x 2 px blocks."""
    if face_crop.shape != (CROP_SIZE, CROP_SIZE, 3) or face_crop.dtype != np.uint8:
        raise ValueError(
            f"expected a face crop uint8 ({CROP_SIZE}, {CROP_SIZE}, 3), got {face_crop.dtype} {face_crop.shape}"
        )
    grey = face_crop[MOUTH_PLACE] @ GREY
    block = grey.shape[0] // SIDE
    return grey.reshape(SIDE, block, SIDE, block).mean(axis=(1, 3)).round().astype(np.uint8)


def save_sync(net: LipSyncNet, path: str | Path, notes: dict[str, object]) -> None:
    """Writes float16 weights with the config that rebuilds the network. notes: description of the training."""
    save_weights(net, path, net.kind, net.config, notes, half=True)


def load_sync(path: str | Path = "embedded", device: torch.device | str = "cpu") -> LipSyncNet:
    """The network in a weight file, frozen; WeightsError for any other file."""
    path = EMBEDDED if str(path) == "embedded" else Path(path)
    weights = read_weights(path)
    if weights.kind != LipSyncNet.kind:
        raise WeightsError(
            f"{path} holds a {weights.kind!r} network, not a sync network ({LipSyncNet.kind!r})."
        )
    net = fill(lambda: LipSyncNet(config_of(weights.config)), weights, path)
    return net.to(device).eval().requires_grad_(False)
