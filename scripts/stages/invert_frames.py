"""Aligned clips -> their codes in W+: data/latents-<hash>/ with one LatentClip a clip and the same manifest. Clips are
prepared first when they are absent.
"""

import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from configs.schema import Config
from encoders import invert
from encoders.features.landmark_net import load_landmark_net
from encoders.geometry import aperture, width
from encoders.manifest import ClipEntry, Manifest, read_manifest, write_manifest
from encoders.records import FrameClip, LatentClip
from scripts.core.networks import (
    encoder_path,
    generator_path,
    inversion_judges,
    keyed,
    the_encoder,
    the_generator,
    the_teacher,
)
from scripts.core.runtime import Run, shown, threads
from scripts.stages.prepare_data import prepare_data
from stylegan2.weights import WeightsError, file_hash
from trajectory.model.displacement import DisplacementConfig


def invert_frames(config: Config, run: Run) -> Path:
    """The folder of latent clips, made if it is not there; its manifest notes which prepared folder they show."""
    folder = _inverted(config, run)
    return folder if config.displacement.reference == "neutral" else _with_reference(folder, config, run)


def _inverted(config: Config, run: Run) -> Path:
    prepared = prepare_data(config, run)
    hashes = {"generator": file_hash(generator_path(config)), "encoder": file_hash(encoder_path(config))}
    made_by = (config.encoder.inversion, config.teacher, config.target.share, inversion_judges(config))
    folder = keyed(run, "latents", prepared.name, hashes, *made_by)
    if (folder / "manifest.json").is_file():
        run.say(f"inverted: {len(read_manifest(folder).ok())} clips in {shown(folder)}")
        return folder
    entries = read_manifest(prepared).ok()
    run.say(
        f"inverting {len(entries)} clips into {shown(folder)} (generator {config.generator.weights}, encoder {config.encoder.weights})"
    )
    with run.timed("invert"):
        inverter = Inverter(config, run)
        speakers = run.mine(list(dict.fromkeys(entry.speaker for entry in entries)))
        mine = [e for e in entries if e.speaker in speakers and not (folder / e.file).is_file()]
        portraits = {}
        for speaker in dict.fromkeys(entry.speaker for entry in mine):
            model, _ = portrait_clip(entries, speaker)
            portraits[speaker] = portrait_frames(FrameClip.load(prepared / model.file), config)
        offsets = inverter.person_offsets(portraits)
        for entry in track(mine, "invert", transient=True):
            clip = FrameClip.load(prepared / entry.file)
            _latent_clip(clip, inverter, offsets[entry.speaker], hashes).save(folder / entry.file)
        run.meet()
        if run.first:
            write_manifest(folder, Manifest(tuple(entries), {"prepared": prepared.name, **hashes}))
        run.meet()
    return folder


def _with_reference(latents: Path, config: Config, run: Run) -> Path:
    """The same codes with other identity frames: nothing is inverted again."""
    choice = config.displacement
    folder = keyed(run, "latents", latents.name, choice.reference, choice.reference_seed)
    if (folder / "manifest.json").is_file():
        return folder
    manifest = read_manifest(latents)
    for entry in run.mine(manifest.ok()):
        clip = FrameClip.load(run.data / manifest.notes["prepared"] / entry.file)
        codes = LatentClip.load(latents / entry.file)
        index = reference_frame(clip, choice)
        replace(codes, w_ref=codes.w[index].astype(np.float32), ref_index=index).save(folder / entry.file)
    run.meet()
    if run.first:
        write_manifest(folder, manifest)
    run.meet()
    return folder


class Inverter:
    """Frames -> W+ as the config says; holds the networks."""

    def __init__(self, config: Config, run: Run) -> None:
        self.settings, self.workers = config.encoder.inversion, config.workers
        self.generator = the_generator(config, run).requires_grad_(False)
        self.encoder = the_encoder(config, run) if self.settings.start == "encoder" else None
        self.judges = None
        if self.settings.steps or self.settings.person_steps:
            net = load_landmark_net().to(run.device) if self.settings.landmark_weight else None
            self.judges = invert.Judges(the_teacher(config, run), net)
        if self.encoder is not None and self.encoder.num_rows != self.generator.num_rows:
            raise WeightsError(
                f"encoder.weights={config.encoder.weights} writes {self.encoder.num_rows} rows and "
                f"generator.weights={config.generator.weights} reads {self.generator.num_rows}: "
                "choose an encoder trained for this generator, or encoder=optimise."
            )

    def person_offset(self, frames: np.ndarray) -> torch.Tensor | None:
        """What all codes of a person lack (L, D), found on uint8 frames (K, 256, 256, 3); None if that is off."""
        if self.judges is None or not self.settings.person_steps:
            return None
        return invert.person_offset(frames, self.encoder, self.generator, self.settings, self.judges)

    def person_offsets(self, portraits: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor | None]:
        """person_offset of each speaker's frames. On a CPU several speakers at once, each with a share of the cores:
        the few frames of one do not keep two cores busy."""
        on_cpu, cores = self.generator.w_avg.device.type == "cpu", torch.get_num_threads()
        at_once = max(1, min(self.workers, len(portraits), cores)) if on_cpu else 1
        with threads(cores // at_once), ThreadPoolExecutor(at_once) as pool:
            offsets = pool.map(self.person_offset, portraits.values())
            found = track(offsets, "persons", len(portraits), transient=True)
            return dict(zip(portraits, found, strict=True))

    def __call__(self, frames: Iterable[np.ndarray], offset_LD: torch.Tensor | None = None) -> np.ndarray:
        """uint8 frames (256, 256, 3) -> float32 (T, L, D)."""
        chunks = invert.invert_frames(
            iter(frames), self.encoder, self.generator, self.settings, self.judges, offset_LD
        )
        return torch.cat(list(chunks)).numpy()


def _latent_clip(
    clip: FrameClip, inverter: Inverter, offset_LD: torch.Tensor | None, hashes: dict[str, str]
) -> LatentClip:
    w_TLD = inverter(clip.frames, offset_LD)
    reference = neutral_frame(clip)
    return LatentClip(
        name=clip.name,
        speaker=clip.speaker,
        sentence=clip.sentence,
        split=clip.split,
        w=w_TLD.astype(np.float16),
        w_ref=w_TLD[reference].astype(np.float32),
        ref_index=reference,
        clip_hash=clip.content_hash(),
        generator_hash=hashes["generator"],
        encoder_hash=hashes["encoder"],
    )


def portrait_clip(entries: list[ClipEntry], speaker: str) -> tuple[ClipEntry, bool]:
    """The clip that shows who a speaker is, and whether it is the only one; evaluate.py scores the others."""
    clips = [e for e in entries if e.speaker == speaker]
    trained = [e for e in clips if e.split == "train"]
    return (trained or clips)[0], len(clips) == 1


def fitted_frames(total: int, config: Config) -> int:
    """How many frames of a speaker's only clip may be fitted to, the first target.share; the rest is scored."""
    return round(config.target.share * total)


def portrait_frames(clip: FrameClip, config: Config) -> np.ndarray:
    """A few frames of the first target.share of a clip, from the lips' narrowest to their widest opening."""
    before = fitted_frames(len(clip), config)
    opening = np.where(clip.detected[:before], aperture(clip.landmarks[:before]), np.inf)
    seen = np.argsort(opening, kind="stable")[: max(1, int(np.isfinite(opening).sum()))]
    count = min(config.encoder.inversion.person_frames, len(seen))
    chosen = seen[np.linspace(0, len(seen) - 1, count).round().astype(int)]
    return np.asarray(clip.frames[sorted(chosen.tolist())])


def reference_frame(clip: FrameClip, config: DisplacementConfig, before: int | None = None) -> int:
    """The identity frame that displacement.reference asks for, of the first `before`."""
    if config.reference == "neutral":
        return neutral_frame(clip, before)
    seen = np.flatnonzero(clip.detected[:before])
    if config.reference == "first" or not len(seen):
        return int(seen[0]) if len(seen) else 0
    rng = np.random.default_rng([config.reference_seed, zlib.crc32(clip.name.encode())])
    return int(rng.choice(seen))


def neutral_frame(clip: FrameClip, before: int | None = None) -> int:
    """The identity frame: a detected one (of the first `before`) with lips closed and of the clip's usual width."""
    landmarks, detected = clip.landmarks[:before], clip.detected[:before]
    wide = width(landmarks)
    cost = aperture(landmarks) + np.abs(wide - np.median(wide))
    return int(np.argmin(np.where(detected, cost, cost + 1e3)))
