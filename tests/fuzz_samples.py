"""Small good files of every kind that the project reads, and random changes of them."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
from brightness_face import LEVELS
from drawn_videos import grey
from metric_scores import report
from nvidia_pickles import recorded, write_snapshot
from PIL import Image

from audio.timing import RATE
from audio.waveform import Waveform
from encoders.footage.video_writer import write_video
from encoders.manifest import ClipEntry, Manifest, write_manifest
from encoders.networks.e4e_compact import CompactE4E, CompactE4EConfig, save_encoder
from encoders.records import FrameClip, LatentClip
from stylegan2.networks.generator import StyleGAN2
from stylegan2.public.nvidia import to_nvidia
from stylegan2.public.rosinality import generator_to_rosinality
from stylegan2.weights import save_weights
from trajectory.motion.natural_motion import ASSET as NATURAL_MOTION

FRAMES = 12


@dataclass(frozen=True)
class Sample:
    reader: str  # a key of fuzzed_readers
    file: Path


def write_samples(folder: Path, face: np.ndarray) -> dict[str, Sample]:
    """One good file of each kind by a name. face: uint8 (256, 256, 3)."""
    made: dict[str, Sample] = {}

    def add(reader: str, name: str, write: Callable[[Path], Any]) -> None:
        write(folder / name)
        made[name] = Sample(reader, folder / name)

    sound = Waveform(np.random.default_rng(0).uniform(-0.1, 0.1, FRAMES * RATE // 25).astype(np.float32))
    frames = [grey(int(level)) for level in LEVELS[:FRAMES]]
    for name in ("video.mp4", "video.mkv", "video.mov"):
        add("video", name, lambda path: write_video(path, frames, sound))
    for name in ("video.mpg", "video.avi"):
        add("video", name, lambda path: _older_video(path, frames, sound))
    add("sound of a video", "talk.mp4", lambda path: write_video(path, frames, sound))
    for name in ("a.wav", "a.mp3", "a.flac", "a.ogg", "a.aiff"):
        add("sound", name, lambda path: soundfile.write(path, sound.samples, RATE))
    add("sound", "a.opus", lambda path: soundfile.write(path, sound.samples, RATE, "OPUS", format="OGG"))
    add("sound", "a.m4a", lambda path: _older_video(path, [], sound))

    picture = Image.fromarray(face[::2, ::2])
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    add("photo", "a.jpg", lambda path: picture.rotate(90).save(path, exif=exif))
    add("photo", "progressive.jpg", lambda path: picture.save(path, progressive=True))
    add("photo", "a.webp", lambda path: picture.save(path, exif=exif))
    add("photo", "a.png", lambda path: picture.convert("RGBA").save(path, exif=exif))
    add("photo", "palette.png", lambda path: picture.convert("P").save(path, transparency=3))
    add(
        "photo",
        "sixteen.png",
        lambda path: Image.fromarray(face[::2, ::2, 0].astype(np.uint16) * 257).save(path),
    )
    for name in ("a.bmp", "a.tiff", "a.gif", "a.jp2", "a.avif"):
        add("photo", name, picture.save)
    add("photo", "packed.tiff", lambda path: picture.save(path, compression="tiff_lzw"))

    torch.manual_seed(0)
    channels = {4: 8, 8: 8, 16: 4}
    net = StyleGAN2(16, z_dim=8, w_dim=8, channels=channels, mapping_layers=2).requires_grad_(False)
    add("generator", "g.safetensors", lambda path: save_weights(net, path, "stylegan2", net.config))
    small = CompactE4EConfig(14, 8, (8, 8, 8, 8, 8), (1, 1, 1, 1, 1), 8, 4)
    add("encoder", "e.safetensors", lambda path: save_encoder(CompactE4E(small), path, {}))
    add("trajectory", "t.safetensors", _small_trajectory)
    delta = {"delta.w_avg": torch.zeros(512), "pivots": torch.zeros(1, 14, 512)}
    add("tuned", "tuned.safetensors", lambda path: save_weights(delta, path, "tuned", {"base_hash": "base"}))
    clip = FrameClip(
        "c", "s", "x", "train", "c.mp4", "0" * 64, np.stack([face[::4, ::4]] * 4), np.ones((4, 68, 2), np.float32),
        np.ones((4, 4, 2), np.float32), np.ones(4, bool), np.zeros(4 * RATE // 25, np.float32),
    )  # fmt: skip
    add("frame clip", "frames.safetensors", clip.save)
    codes = np.ones((4, 14, 8))
    latents = LatentClip(
        "c", "s", "x", "train", codes.astype(np.float16), codes[0].astype(np.float32), 1, "a", "b", "c"
    )
    add("latent clip", "codes.safetensors", latents.save)

    entry = ClipEntry("c", "c.safetensors", "s", "x", "train", 4, figures={"detected": 1.0})
    add(
        "manifest",
        "manifest.json",
        lambda path: write_manifest(path, Manifest((entry,), {"detector": "dlib"})),
    )
    add("report", "report.json", report)
    add("motion", "motion.json", lambda path: path.write_bytes(NATURAL_MOTION.read_bytes()))

    theirs = generator_to_rosinality(net)
    add("public", "plain.pt", lambda path: torch.save(to_nvidia(net), path))
    whole = {"g_ema": theirs, "latent_avg": net.w_avg.clone()}
    add("public", "rosinality.pt", lambda path: torch.save(whole, path, _use_new_zipfile_serialization=False))
    e4e = {
        "state_dict": {f"decoder.{k}": v for k, v in theirs.items()},
        "latent_avg": net.w_avg.clone(),
        "opts": {},
    }
    add("public", "e4e.pt", lambda path: torch.save(e4e, path))
    add("public", "nvidia.pkl", lambda path: write_snapshot(path, G_ema=recorded(net, "Generator")))
    return made


def _older_video(path: Path, frames: list[np.ndarray], sound: Waveform) -> None:
    """MPEG video and MP2 sound as in GRID, MPEG-4 in an AVI, or AAC alone."""
    video, audio = {".mpg": ("mpeg1video", "mp2"), ".avi": ("mpeg4", "mp2"), ".m4a": ("", "aac")}[path.suffix]
    with av.open(str(path), "w", format="ipod" if path.suffix == ".m4a" else None) as container:
        pictures: Any = container.add_stream(video, rate=25) if frames else None
        samples: Any = container.add_stream(audio, rate=RATE, layout="mono")
        if frames:
            pictures.height, pictures.width, pictures.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index
            container.mux(pictures.encode(frame))
        if frames:
            container.mux(pictures.encode(None))
        values = sound.samples[None] if audio == "aac" else (sound.samples[None] * 32767).astype(np.int16)
        block = av.AudioFrame.from_ndarray(values, format="fltp" if audio == "aac" else "s16", layout="mono")
        block.sample_rate, block.pts = RATE, 0
        container.mux(samples.encode(block))
        container.mux(samples.encode(None))


def _small_trajectory(path: Path) -> None:
    from audio.features import FeatureConfig
    from trajectory.model.displacement import DisplacementConfig, fit_space
    from trajectory.model.predictor import TrajectoryPredictor, save_trajectory
    from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet

    d = np.random.default_rng(0).standard_normal((40, 4, 8)).astype(np.float32)
    space = fit_space(d, d, DisplacementConfig(5, 3, [1, 3]))
    features = FeatureConfig(n_mels=40, context_ms=120)
    settings = TrajectoryConfig(channels=4, audio_dim=8, hidden=8, decoder=16)
    net = TrajectoryNet(
        settings, (features.rows, features.width), space.identity_dims, space.num_coefficients
    )
    save_trajectory(TrajectoryPredictor(net, space, features), path)


@dataclass(frozen=True)
class Change:
    """One change of a file's bytes. place in [0, 1): where; near_start: within its first 256 bytes."""

    kind: str  # cut, delete, repeat, insert, overwrite
    place: float
    near_start: bool
    content: bytes  # what is inserted or written; its length is that of the part deleted or repeated, times 8

    def __call__(self, data: bytes) -> bytes:
        at = int(self.place * (min(len(data), 256) if self.near_start else len(data)))
        length = len(self.content)
        match self.kind:
            case "cut":
                return data[:at]
            case "delete":
                return data[:at] + data[at + 8 * length :]
            case "repeat":
                return data[: at + 8 * length] + data[at:]
            case "insert":
                return data[:at] + self.content + data[at:]
            case _:
                return data[:at] + self.content + data[at + length :]


CHANGES = ("cut", "delete", "repeat", "insert", "overwrite")
EXTREMES = [struct.pack(f, n) for n in (0, 2**31 - 1, 2**32 - 1, 2**15) for f in ("<I", ">I")]
VALUES = [
    None, True, 0, -1, 1.5, 10**9, 2**63, 1e400, float("nan"), "", "x", "é\u0000", [], {}, [1] * 50, {"a": 1},
    [[]], "../../x", "1e9",
]  # fmt: skip


def places_in(tree: Any) -> list[tuple[Any, ...]]:
    """The keys that lead to each value of a JSON tree; JSON inside a text counts as a part of the tree."""
    tree = _opened(tree)
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [(), *((key, *below) for key, value in items for below in places_in(value))]


def with_value(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of the tree with another value in this place; None in the place of a key's value removes half of them."""
    if not place:
        return value
    inner = _opened(tree)
    key = place[0]
    changed = with_value(inner[key], place[1:], value)
    if isinstance(inner, dict):
        result: Any = {**inner, key: changed}
        if value is None and len(place) == 1 and len(str(key)) % 2:
            del result[key]
    else:
        result = [changed if i == key else old for i, old in enumerate(inner)]
    return json.dumps(result) if isinstance(tree, str) else result


def _opened(tree: Any) -> Any:
    if isinstance(tree, str) and tree[:1] in ("{", "["):
        try:
            return json.loads(tree)
        except ValueError:
            return tree
    return tree


def header_of(data: bytes) -> tuple[Any, bytes]:
    """The JSON of a JSON file or of a safetensors file's header, and the bytes after it."""
    if data[:1] == b"{":
        return json.loads(data), b""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(data: bytes, header: Any) -> bytes:
    """The file with another header."""
    text = json.dumps(header).encode("utf-8", "replace")
    if data[:1] == b"{":
        return text
    return struct.pack("<Q", len(text)) + text + header_of(data)[1]
