"""Measurements of check_assets.py on natural motion: people who speak with it and without it.

Everything is measured by dlib on rendered frames. Shapes: T frames, P = 6 axes of the pose, L rows of W+, D = 512;
landmarks (T, 68, 2) px of the frame; N windows of 3 s.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from audio.timing import FPS, samples_of_frames
from audio.waveform import Waveform
from configs.schema import Config
from encoders.bases.viseme_basis import load_viseme_basis
from encoders.features.identity import DlibIdentity, identity_distance
from encoders.footage.align import interpolate_missing, points_in_frame
from encoders.footage.faces import FaceDetector, face_in_crop
from encoders.geometry import aperture, correlation, eye_openness
from encoders.records import FrameClip
from metrics.report.plots import save_image
from scripts.assets.fit_motion import WINDOW, window_figures
from scripts.assets.mouth_checks import landmarks_of
from scripts.core.networks import build_predictor, build_renderer
from scripts.core.runtime import Run
from scripts.stages.evaluate_case import predict_latents
from scripts.stages.identity_frames import neutral_frame, portrait_frames
from scripts.stages.invert_frames import Inverter
from scripts.stages.prepare_data import prepare_data
from stylegan2.protocol import Generator
from stylegan2.render import render
from trajectory.model.predictor import shipped_stage1
from trajectory.motion.apply import blinking, latent_blinks, latent_motion, limited, moved
from trajectory.motion.natural_motion import ASSET, load_natural_motion
from trajectory.motion.tracks import POSE_AXES, MotionTrack, lid_closure, raw_pose
from trajectory.synthetic_corpus.build_corpus import perform
from trajectory.synthetic_corpus.sentences import SentenceSource
from trajectory.synthetic_corpus.speakers import draw_speakers, face_latent

PEOPLE, FRAMES = 10, 8 * FPS  # synthetic speakers, and the frames of each person
EVERY = 5  # every fifth frame's identity is measured
DRAWS = 40  # tracks of each speech, for the statistics of blinks
HALF = 0.5  # closure above which the eyes count as half closed
SHEET_FRAMES = (
    6  # evenly spaced frames in a row of the sheet, before those of a blink, the largest turn and roll
)


@dataclass(frozen=True)
class Sitter:
    """A person who speaks. face: (L, D), the identity latent. clip: the video of a person who exists."""

    name: str
    face: np.ndarray
    speech: Waveform
    clip: FrameClip | None = None

    @property
    def frames(self) -> int:
        return len(self.speech.samples) // samples_of_frames(1)


def motion(config: Config, run: Run, detector: FaceDetector, sheet: Path) -> dict[str, Any]:
    """Figures of synthetic speakers, and of the people in the clips of data.root if it is given.

    `Stage.measure` lists the figures of one person, which are averaged. inside: share of the windows' figures
    (scripts/assets/fit_motion.py) whose median lies within the quartiles of the real windows that the model's file names.
    blinks: of many tracks drawn for these speeches. of_the_clips: what the people in them did themselves.
    """
    stage = Stage(config, run, detector)
    groups = {"synthetic": list(_synthetic(config, stage.generator))}
    if config.data.kind == "folder":
        groups["clips"] = list(_in_clips(config, run))
    figures: dict[str, Any] = {}
    rows: list[np.ndarray] = []
    for group, sitters in groups.items():
        records, poses = [], []
        for seed, sitter in enumerate(track(sitters, f"motion, {group}", transient=True)):
            record, pose, pictures = stage.measure(sitter, seed)
            records.append(record)
            poses.append(pose)
            rows.append(pictures)
            save_image(sheet, np.concatenate(rows))
        drawn = [stage.model.draw(s.speech, s.frames, n).lids for n in range(DRAWS) for s in sitters]
        figures[group] = summary(records, poses) | {"blinks": blink_figures(drawn)}
    if "clips" in groups:
        figures["of_the_clips"] = _of_clips([s.clip for s in groups["clips"] if s.clip is not None])
    return figures


def summary(records: list[dict[str, Any]], poses: list[np.ndarray]) -> dict[str, Any]:
    """Means of the records' numbers, `within_quartiles` of the poses (T, P), and the records."""
    names = [name for name, value in records[0].items() if isinstance(value, float)]
    means = {name: _rounded(np.mean([record[name] for record in records])) for name in names}
    return means | within_quartiles(poses) | {"each": records}


def _of_clips(clips: list[FrameClip]) -> dict[str, Any]:
    points = [points_in_frame(clip.landmarks, clip.quads) for clip in clips]
    lids = [lid_closure(p) for p in points]
    lowest = [lowest_openness(one, p) for one, p in zip(lids, points, strict=True)]
    poses = [raw_pose(p, clip.detected) for p, clip in zip(points, clips, strict=True)]
    shut = _rounded(np.median(np.concatenate(lowest)))
    return {"blinks": blink_figures(lids), "open_in_blinks": shut, "windows": _medians(poses)}


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def _synthetic(config: Config, generator: Generator) -> Iterator[Sitter]:
    source = SentenceSource(config.corpus.seed)
    for person in draw_speakers(config.corpus.seed, PEOPLE, 0):
        samples = np.zeros(0, np.float32)
        while len(samples) < samples_of_frames(FRAMES):
            said = perform(config.corpus, person, source.draw("train", "free"), "train")
            samples = np.concatenate([samples, said.waveform.samples])
        speech = Waveform(samples[: samples_of_frames(FRAMES)])
        yield Sitter(f"face {person.face}", face_latent(generator, person, config.corpus.psi), speech)


def _in_clips(config: Config, run: Run) -> Iterator[Sitter]:
    """The people in data.root: the code of the identity frame, with the person's offset, and the clip's first seconds."""
    prepared, inverter = prepare_data(config, run), Inverter(config, run)
    for entry in prepared.manifest.ok():
        clip = FrameClip.load(prepared.folder / entry.file)
        offset_LD = inverter.person_offset(portrait_frames(clip, config))
        neutral = neutral_frame(clip)
        face_LD = inverter(clip.frames[neutral : neutral + 1], offset_LD)[0]
        speech = Waveform(clip.waveform[: samples_of_frames(min(FRAMES, len(clip)))])
        yield Sitter(entry.name, face_LD, speech, clip)


class Stage:
    """The networks that make and measure a person's video."""

    def __init__(self, config: Config, run: Run, detector: FaceDetector) -> None:
        self.generator = build_renderer(config, run)
        self.stage1 = build_predictor(shipped_stage1(), config, run)
        self.model, self.basis = load_natural_motion(), load_viseme_basis()
        self.detector, self.identity = detector, DlibIdentity()

    def measure(self, sitter: Sitter, seed: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """Figures of one person, the pose (T, P) of the moving head, and two rows of frames, without and with motion.

        identity, identity_still: mean dlib distance to the neutral frame, the clip's own if there is one; identity_turned:
        of the tenth of the frames that are turned most. lips: correlation of the lips' opening with that without motion.
        mouth_corr, mouth_corr_still: with the true opening, of clips. lids: correlation of the lids' closure with the drawn
        one. open_in_blinks: `lowest_openness` of each drawn blink.
        axes: of each axis, the movement that is measured for each unit that is drawn, and their correlation.
        """
        speech, frames = sitter.speech, sitter.frames
        w_TLD = predict_latents(self.stage1, speech, sitter.face, frames)
        drawn = self.model.draw(speech, frames, seed)
        turned_TLD = w_TLD + latent_motion(drawn, self.basis)
        blinks_TLD = latent_blinks(drawn, self.basis)
        still = list(render(self.generator, w_TLD))
        open_eyed = render(self.generator, turned_TLD)
        moving = list(moved(blinking(open_eyed, self.generator, turned_TLD, blinks_TLD), drawn.pose))
        points, found = zip(*(self._landmarks(video) for video in (still, moving)), strict=True)
        openings = [aperture(p) for p in points]

        neutral = next(render(self.generator, sitter.face[None]))
        if sitter.clip is not None:
            neutral = np.asarray(sitter.clip.frames[neutral_frame(sitter.clip)])
        distances = [self._distances(v, p, neutral) for v, p in zip((still, moving), points, strict=True)]
        yaw = np.abs(drawn.pose[::EVERY, POSE_AXES.index("yaw")])
        record: dict[str, Any] = {
            "detected": _rounded(found[1].mean()),
            "identity_still": _rounded(distances[0].mean()),
            "identity": _rounded(distances[1].mean()),
            "identity_worse": _rounded(distances[1].mean() - distances[0].mean()),
            "identity_turned": _rounded(distances[1][yaw >= np.percentile(yaw, 90)].mean()),
            "lips": _rounded(correlation(openings[1], openings[0])),
        }
        if sitter.clip is not None:
            true = aperture(sitter.clip.landmarks[:frames])
            corr = [correlation(opening, true) for opening in openings]
            record |= {"mouth_corr_still": _rounded(corr[0]), "mouth_corr": _rounded(corr[1])}
            record["mouth_corr_worse"] = _rounded(corr[0] - corr[1])
        record["lids"] = _rounded(correlation(lid_closure(points[1]), drawn.lids))
        record["open_in_blinks"] = [_rounded(v) for v in lowest_openness(drawn.lids, points[1])]
        poses = [raw_pose(p, f) for p, f in zip(points, found, strict=True)]
        record["axes"] = _axes(drawn, poses[1] - poses[0])
        shown = [int(drawn.lids.argmax()), *(int(np.abs(drawn.pose[:, p]).argmax()) for p in (0, 2))]
        chosen = [*np.linspace(0, frames - 1, SHEET_FRAMES).astype(int), *shown]
        pictures = [np.concatenate([video[k] for k in chosen], axis=1) for video in (still, moving)]
        return {"name": sitter.name, **record}, poses[1], np.concatenate(pictures)

    def _landmarks(self, video: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(T, 68, 2), interpolated where no face is found, and bool (T,)."""
        points = landmarks_of(video, self.detector)
        found = np.isfinite(points[:, 0, 0])
        return interpolate_missing(points, found), found

    def _distances(self, video: list[np.ndarray], points: np.ndarray, neutral: np.ndarray) -> np.ndarray:
        face = face_in_crop(self.detector, neutral)
        assert face is not None
        one = self.identity.embed(neutral, face.landmarks)
        pairs = zip(video[::EVERY], points[::EVERY], strict=True)
        return np.array([identity_distance(self.identity.embed(frame, p), one) for frame, p in pairs])


def lowest_openness(lids: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The lowest openness of the eyes in each blink of lids (T,), as a share of their median."""
    openness = eye_openness(points) / np.median(eye_openness(points))
    return np.array([openness[start:stop].min() for start, stop in runs(lids > HALF)])


def _axes(drawn: MotionTrack, measured: np.ndarray) -> dict[str, list[float]]:
    """[slope, correlation] of each axis; measured: (T, P), without what is there without motion."""
    intended = limited(drawn.pose)
    intended, measured = intended - intended.mean(0), measured - measured.mean(0)
    slope = (intended * measured).sum(0) / np.square(intended).sum(0)
    return {
        axis: [_rounded(slope[p]), _rounded(correlation(intended[:, p], measured[:, p]))]
        for p, axis in enumerate(POSE_AXES)
    }


def _medians(poses: list[np.ndarray]) -> dict[str, float]:
    """Median over windows of each of the windows' figures. poses: (T, P) each."""
    cut = [pose[k : k + WINDOW] for pose in poses for k in range(0, len(pose) - WINDOW + 1, WINDOW)]
    return {name: float(f"{np.median(v):.3g}") for name, v in window_figures(np.stack(cut)).items()}


def within_quartiles(poses: list[np.ndarray]) -> dict[str, Any]:
    """The share of figures of these poses (T, P) within the quartiles of the real windows, and the figures outside."""
    real = json.loads(ASSET.read_text(encoding="utf-8"))["made_from"]["held_out"]
    medians = _medians(poses)
    outside = {
        name: [value, *real[name]]
        for name, value in medians.items()
        if not real[name][0] <= value <= real[name][1]
    }
    return {"inside": _rounded(1 - len(outside) / len(medians)), "outside": outside}


def runs(mask_T: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask_T, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def blink_figures(closures: Iterable[np.ndarray]) -> dict[str, Any]:
    """Blinks a minute, and quartiles of the seconds for which they are more than half closed and of those between the starts
    of two. closures: (T,) of several videos."""
    closures = list(closures)
    found = [runs(closure > HALF) for closure in closures]
    lasting = [stop - start for one in found for start, stop in one]
    spacing = [gap for one in found for gap in np.diff([start for start, _ in one]).tolist()]
    minutes = sum(map(len, closures)) / FPS / 60
    quartiles = [
        [_rounded(q / FPS) for q in np.percentile(frames, (25, 50, 75))] if frames else None
        for frames in (lasting, spacing)
    ]
    return {
        "per_minute": round(len(lasting) / minutes, 1),
        "half_closed": quartiles[0],
        "spacing": quartiles[1],
    }
