"""Inverts aligned clips to W+ codes, one LatentClip for each clip."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from configs.schema import Config
from encoders import invert
from encoders.content_hash import content_hash
from encoders.manifest import ClipEntry, Manifest, write_manifest
from encoders.person_offset import person_offset
from encoders.records import FrameClip, LatentClip
from scripts.core.networks import (
    build_encoder,
    build_generator,
    build_likeness,
    build_teacher,
    encoder_path,
    generator_path,
    in_precision,
    inversion_key_parts,
    keyed,
)
from scripts.core.runtime import Run, shown, threads
from scripts.stages.identity_frames import (
    Portrait,
    neutral_frame,
    portrait_clip,
    portrait_frames,
    reference_frame,
)
from scripts.stages.stage_results import Latents, Prepared
from stylegan2.images import to_tensor
from stylegan2.weights import WeightsError, atomic_path, file_hash


def invert_frames(config: Config, run: Run, prepared: Prepared) -> Latents:
    """The codes of the prepared clips; those that do not exist yet are computed."""
    latents = _inverted(config, run, prepared)
    return latents if config.displacement.reference == "neutral" else _with_reference(latents, config, run)


def _inverted(config: Config, run: Run, prepared: Prepared) -> Latents:
    hashes = {"generator": file_hash(generator_path(config)), "encoder": file_hash(encoder_path(config))}
    made_by = (config.encoder.inversion, config.teacher, config.target.share, inversion_key_parts(config))
    folder = keyed(run, "latents", prepared.folder.name, hashes, *made_by, *_precision(config))
    latents = Latents(folder, prepared.folder)
    if not (folder / "manifest.json").is_file():
        with run.timed("invert"):
            _invert_all(latents, prepared, hashes, config, run)
    run.say(f"inverted: {len(latents.entries())} clips in {shown(folder)}")
    return latents


def _precision(config: Config) -> list[str]:
    """A part of the keys of what is fitted through the generator; empty in float32."""
    return ["bfloat16"] if config.bf16 else []


def _invert_all(
    latents: Latents, prepared: Prepared, hashes: dict[str, str], config: Config, run: Run
) -> None:
    entries, folder = prepared.manifest.ok(), latents.folder
    run.say(
        f"inverting {len(entries)} clips into {shown(folder)} (generator {config.generator.weights}, encoder {config.encoder.weights})"
    )
    inverter = Inverter(config, run)
    # All clips of a speaker go to the same process, because they share one offset.
    speakers = run.own_share(list(dict.fromkeys(entry.speaker for entry in entries)))
    missing = [e for e in entries if e.speaker in speakers and not (folder / e.file).is_file()]
    portraits = {}
    for speaker in dict.fromkeys(entry.speaker for entry in missing):
        portrait, _ = portrait_clip(entries, speaker)
        portraits[speaker] = portrait_frames(latents.frames(portrait), config)
    offsets = inverter.person_offsets(portraits, folder / "offsets")

    def invert_clip(entry: ClipEntry) -> None:
        codes = _latent_clip(latents.frames(entry), inverter, offsets[entry.speaker], hashes)
        codes.save(folder / entry.file)

    with inverter.several_at_once(len(missing)) as pool:
        for _ in track(pool.map(invert_clip, missing), "invert", len(missing), transient=True):
            pass
    run.barrier()
    if run.first:
        write_manifest(folder, Manifest(tuple(entries), {"prepared": prepared.folder.name, **hashes}))
    run.barrier()


def _with_reference(latents: Latents, config: Config, run: Run) -> Latents:
    """The same codes with other identity frames (displacement.reference), without inverting again."""
    choice = config.displacement
    folder = keyed(run, "latents", latents.name, choice.reference, choice.reference_seed)
    if not (folder / "manifest.json").is_file():
        for entry in run.own_share(latents.entries()):
            codes = latents.codes(entry)
            index = reference_frame(latents.frames(entry), choice)
            replace(codes, w_ref=codes.w[index].astype(np.float32), ref_index=index).save(folder / entry.file)
        run.barrier()
        if run.first:
            write_manifest(folder, latents.manifest)
        run.barrier()
    return Latents(folder, latents.prepared)


class Inverter:
    """Inverts frames with the settings config.encoder and holds the networks for it."""

    def __init__(self, config: Config, run: Run) -> None:
        self.settings, self.workers = config.encoder.inversion, config.workers
        self.generator = in_precision(build_generator(config, run), config).requires_grad_(False)
        self.encoder = build_encoder(config, run) if self.settings.start == "encoder" else None
        self.distance = (
            build_teacher(config, run) if self.settings.steps or self.settings.person.steps else None
        )
        self.likeness = None
        if self.distance is not None and self.settings.person.steps:
            self.likeness = build_likeness(self.distance, run)
        if self.encoder is not None and self.encoder.num_rows != self.generator.num_rows:
            raise WeightsError(
                f"encoder.weights={config.encoder.weights} writes {self.encoder.num_rows} rows and "
                f"generator.weights={config.generator.weights} reads {self.generator.num_rows}: "
                "choose an encoder trained for this generator, or encoder=optimise."
            )
        made_with = (file_hash(generator_path(config)), file_hash(encoder_path(config)), config.teacher)
        parts = inversion_key_parts(config)
        self.folder = keyed(run, "persons", *made_with, self.settings, parts, *_precision(config))

    @contextmanager
    def several_at_once(self, tasks: int) -> Iterator[ThreadPoolExecutor]:
        """On a CPU several clips or speakers are inverted at once, each with a share of the cores, because a few frames do
        not keep two cores busy: their threads wait for one another after each layer."""
        on_cpu, cores = self.generator.w_avg.device.type == "cpu", torch.get_num_threads()
        at_once = max(1, min(self.workers, tasks, cores)) if on_cpu else 1
        with threads(cores // at_once), ThreadPoolExecutor(at_once) as pool:
            yield pool

    def person_offset(self, portrait: Portrait) -> torch.Tensor | None:
        """`fitted_offset`; kept under the data folder, so that the same frames are fitted once."""
        return self._kept_offset(portrait, self.folder)

    def fitted_offset(self, portrait: Portrait) -> torch.Tensor | None:
        """The offset (L, D) that all codes of a person share, fitted to their portrait; None without person.steps."""
        if self.likeness is None:
            return None
        images = to_tensor(portrait.frames, self.generator.w_avg.device)
        landmarks = torch.from_numpy(portrait.landmarks).to(images)
        w_KLD = invert.start_codes(images, self.encoder, self.generator, self.settings)
        return person_offset(images, landmarks, w_KLD, self.generator, self.likeness, self.settings.person)

    def person_offsets(
        self, portraits: Mapping[str, Portrait], folder: Path
    ) -> dict[str, torch.Tensor | None]:
        """`fitted_offset` of each speaker; kept in `folder`, so that a run that is stopped does not fit it again."""
        with self.several_at_once(len(portraits)) as pool:
            offsets = pool.map(partial(self._kept_offset, folder=folder), portraits.values())
            tracked = track(offsets, "persons", len(portraits), transient=True)
            return dict(zip(portraits, tracked, strict=True))

    def _kept_offset(self, portrait: Portrait, folder: Path) -> torch.Tensor | None:
        file = folder / f"{content_hash(portrait.frames)[:16]}.npy"
        if file.is_file():
            return torch.from_numpy(np.load(file)).to(self.generator.w_avg.device)
        offset_LD = self.fitted_offset(portrait)
        if offset_LD is not None:
            with atomic_path(file) as temporary:
                np.save(temporary, offset_LD.cpu().numpy())
        return offset_LD

    def __call__(self, frames: Iterable[np.ndarray], offset_LD: torch.Tensor | None = None) -> np.ndarray:
        """uint8 frames (256, 256, 3) -> float32 (T, L, D)."""
        chunks = invert.invert_frames(
            iter(frames), self.encoder, self.generator, self.settings, self.distance, offset_LD
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
