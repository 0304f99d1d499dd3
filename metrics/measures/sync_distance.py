"""Audio-visual sync: LSE-C and LSE-D with the public SyncNet, or the same figures with this project's own network.

A sync judge embeds 0.2 s windows of the face crops of one row and of the sound, both as (W, D);
audio.sync.lip_sync_net.sync_figures turns them into confidence, distance and signed offset. The figures of this
project's network have separate columns, because they are not comparable with LSE. Shapes: T frames, W = T - 4 windows,
D numbers.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from audio.sync import lip_sync_net as sync
from audio.sync import syncnet
from audio.sync.lip_sync_net import WINDOW, LipSyncNet, sync_figures
from audio.sync.syncnet import SyncNet
from audio.waveform import Waveform
from encoders.features.mouth_crop import EMBEDDED, load_sync, mouth_picture
from encoders.networks.ir_se import fill_public
from stylegan2.public.catalogue import demanded, path_of
from stylegan2.weights import WeightsError

Columns = tuple[str, str, str]  # names of confidence, distance and offset
OURS: Columns = ("sync_confidence", "sync_distance", "sync_offset")
LSE: Columns = ("lse_c", "lse_d", "lse_offset")
SYNC_COLUMNS = (*OURS, *LSE)
Choice = Literal["auto", "syncnet", "own", "none"]

# Rows and columns of the aligned face crop that correspond to the public script's cut: from the top of the face box to
# 0.4 of its height below it. The crop ends 42 px earlier; its last row is repeated.
FACE_ROWS, FACE_COLUMNS = (57, 298), (8, 248)


class VideoEmbedder(Protocol):
    """Receives the face crops of one row, uint8 (256, 256, 3), one by one; embeddings: (W, D) of all crops so far."""

    def add(self, face_crop: np.ndarray) -> None: ...
    def embeddings(self) -> np.ndarray: ...


class SyncJudge(Protocol):
    """padded: whether offset_distances pads the ends of the clip. embed_sound: sound of `frames` video frames -> (W, D)."""

    name: str
    columns: Columns
    padded: bool

    def video_embedder(self) -> VideoEmbedder: ...
    def embed_sound(self, waveform: Waveform, frames: int) -> np.ndarray: ...


class OwnSync:
    """The network of audio/sync/lip_sync_net.py."""

    name, padded = "lip_sync", False
    columns: Columns = OURS

    def __init__(self, net: LipSyncNet) -> None:
        self.net = net

    def video_embedder(self) -> VideoEmbedder:
        return _MouthEmbedder(self.net)

    def embed_sound(self, waveform: Waveform, frames: int) -> np.ndarray:
        return sync.embed_sound(self.net, waveform, frames)


class _MouthEmbedder:
    """Keeps a mouth crop of 2.3 kB per frame: the network's input is relative to the mean over the clip."""

    def __init__(self, net: LipSyncNet) -> None:
        self.net = net
        # One block of bytes: thousands of small arrays between frames that are freed would fragment the heap
        self.mouths = bytearray()

    def add(self, face_crop: np.ndarray) -> None:
        self.mouths += mouth_picture(face_crop).tobytes()

    def embeddings(self) -> np.ndarray:
        mouths = np.frombuffer(self.mouths, np.uint8).reshape(-1, sync.SIDE, sync.SIDE)
        return sync.embed_lips(self.net, mouths)


class PublicSync:
    """The public SyncNet. Published numbers use S3FD face tracks; here the aligned face crop is cut in the same way."""

    name, padded = "syncnet_v2", True
    columns: Columns = LSE

    def __init__(self, net: SyncNet, batch: int = 16) -> None:
        self.net, self.batch = net, batch

    def video_embedder(self) -> VideoEmbedder:
        return _FaceEmbedder(self.net, self.batch)

    def embed_sound(self, waveform: Waveform, frames: int) -> np.ndarray:
        return syncnet.embed_sound(self.net, waveform, frames)


class _FaceEmbedder:
    """Embeds `batch` windows as soon as they are complete, so that at most batch + 4 images are in memory."""

    def __init__(self, net: SyncNet, batch: int) -> None:
        self.net, self.batch = net, batch
        self.waiting: list[np.ndarray] = []
        self.done: list[np.ndarray] = []

    def add(self, face_crop: np.ndarray) -> None:
        self.waiting.append(syncnet_picture(face_crop))
        if len(self.waiting) == self.batch + WINDOW - 1:
            self._flush()

    @torch.inference_mode()
    def _flush(self) -> None:
        if len(self.waiting) >= WINDOW:
            device = next(self.net.parameters()).device
            pictures_THWC = torch.from_numpy(np.stack(self.waiting)).to(device).float()
            windows = pictures_THWC.unfold(0, WINDOW, 1).permute(0, 3, 4, 1, 2)  # [W, 3, 5, 224, 224]
            self.done.append(self.net.lips(windows).cpu().numpy())
            self.waiting = self.waiting[1 - WINDOW :]

    def embeddings(self) -> np.ndarray:
        self._flush()
        return np.concatenate(self.done)


def syncnet_picture(face_crop: np.ndarray) -> np.ndarray:
    """Face crop uint8 (256, 256, 3) RGB -> uint8 (224, 224, 3) BGR, cut as the public script cuts a face."""
    rows = np.arange(*FACE_ROWS).clip(0, len(face_crop) - 1)
    cut = (
        torch.from_numpy(face_crop[rows][:, slice(*FACE_COLUMNS), ::-1].copy()).permute(2, 0, 1)[None].float()
    )
    size = (syncnet.SIDE, syncnet.SIDE)
    small = torch.nn.functional.interpolate(cut, size=size, mode="bilinear", align_corners=False)
    return small[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def clip_figures(
    judge: SyncJudge | None, video_WD: np.ndarray | None, sound_WD: np.ndarray | None
) -> dict[str, float | None]:
    """The judge's three columns; {} if judge or sound is missing or the clip is shorter than one window."""
    if judge is None or video_WD is None or sound_WD is None:
        return {}
    figures = sync_figures(video_WD, sound_WD, padded=judge.padded)
    offset = None if figures.offset is None else float(figures.offset)
    return dict(zip(judge.columns, (figures.confidence, figures.distance, offset), strict=True))


# ------------------------------------------------------------------------------------------------------ weights


def load_syncnet(path: str | Path | None = None, device: torch.device | str = "cpu") -> SyncNet:
    """The public SyncNet, frozen; WeightsError if its file is missing or holds another network. Downloads nothing."""
    path = demanded("syncnet", "SyncNet", path)
    net = SyncNet()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping):
            raise WeightsError(f"it holds a {type(state).__name__}, not tensors by name")
        fill_public(net, state, "the public SyncNet")
    except (EOFError, RuntimeError, TypeError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"{path} is not the public SyncNet, or is damaged ({reason}): fetch it again"
        ) from error
    return net.to(device).eval().requires_grad_(False)


def load_judge(
    choice: Choice = "auto", own_weights: str = "embedded", device: torch.device | str = "cpu"
) -> tuple[SyncJudge | None, dict[str, str]]:
    """(judge, missing columns -> reason). auto: the public SyncNet if its file exists, otherwise this project's
    network.

    Raises WeightsError for own_weights that cannot be used. Other missing weights only leave their columns empty.
    """
    if choice == "none":
        return None, {"sync_offset": "metrics.sync=none"}
    absent: dict[str, str] = {}
    if choice != "own":
        try:
            return PublicSync(load_syncnet(device=device)), {}
        except WeightsError as error:
            absent["lse_c, lse_d"] = str(error)
    if choice != "syncnet":
        path = _own_path(own_weights)
        if own_weights != "embedded" or path.is_file():
            return OwnSync(load_sync(path, device)), absent
        absent["sync_confidence, sync_distance"] = (
            f"no weights at {path}: python scripts/train_sync.py makes some"
        )
    return None, absent


def judge_path(judge: SyncJudge | None, own_weights: str = "embedded") -> Path | None:
    """The weight file that a judge was loaded from."""
    if judge is None:
        return None
    return path_of("syncnet") if judge.columns == LSE else _own_path(own_weights)


def _own_path(own_weights: str) -> Path:
    return EMBEDDED if own_weights == "embedded" else Path(own_weights).expanduser()
