"""Scores stage 1, the tuned generator and the control baselines on test clips.

Writes results/<name>/report.json, report.md, report.csv, report.tex, and in results/<name>/evaluate/ a strip of frames, a
plot of lip apertures and a video of prediction and truth side by side.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from audio.waveform import Waveform
from configs.schema import Config
from encoders.footage.video_writer import write_video
from encoders.manifest import ClipEntry
from encoders.records import LatentClip
from encoders.ridge_regression import LEAST
from metrics.report.plots import plot_apertures, save_image, side_by_side, strip
from metrics.report.reencoding_moves import reencoding_lines
from metrics.report.report_files import print_table, write_report, write_tables
from metrics.scoring.control_baselines import ROWS, SPLITS, fit_energy, log_energy, mean_displacement
from metrics.scoring.ridge_baseline import MelRidge, fit_lips
from metrics.scoring.row_accumulator import ClipScore, Judges
from metrics.scoring.score_clips import Evaluation, stride_for
from scripts.core.networks import build_predictor, build_renderer, renderer_path, weight_hashes
from scripts.core.processes import in_processes
from scripts.core.provenance import plain, provenance, stage_seconds
from scripts.core.runtime import Run, shown, start
from scripts.stages.adapt_stage1 import load_stage1_for
from scripts.stages.evaluate_case import TWO_PARTS, Case, Controls, Preview, ScoringContext, score_case
from scripts.stages.evaluators import build_judges, judge_hashes
from scripts.stages.scored_clips import test_cases
from scripts.stages.stage_results import Face, Latents, Person
from scripts.stages.train_stage2 import load_person_generator

Scored = tuple[list[ClipScore], Preview | None]  # one clip
PLOTTED = ("inversion", "energy", "ridge", "stage1_only", "full")


def evaluate(
    config: Config,
    run: Run,
    chosen: list[tuple[ClipEntry, str]],
    latents: Latents,
    training: Latents | None,
    checkpoint: Path,
    person: Person,
) -> Path:
    """report.json of the chosen test clips (test_clips.chosen_clips).

    training: the codes that stage 1 was trained on, to which control baselines are fitted; None: these are left out.
    """
    face = person.face
    with run.timed("evaluate"):
        cases = test_cases(chosen, config, latents, face, person.adapted is not None)
        run.say(f"scoring {len(cases)} clips: {', '.join(sorted({case.split for case in cases}))}")
        judges = build_judges(config, run.device)
        files = {"renderer": renderer_path(config, run), "trajectory": checkpoint}
        files |= {"tuned": person.tuned} if person.tuned else {}
        files |= {"adapted": person.adapted} if person.adapted else {}
        hashes = weight_hashes(config, **files) | judge_hashes(config, judges)
        controls = _controls(cases, training, run) if config.metrics.controls and training else None
        evaluation, preview = _score_all(cases, config, run, checkpoint, person, controls, judges)
    rows = _table(evaluation)
    folder = run.results / "evaluate"
    _pictures(folder, preview, evaluation.scores)
    path = run.results / "report.json"
    report = write_report(
        path,
        rows,
        hashes,
        stage_seconds(run.results, run.seconds),
        evaluation.scores,
        bases=[name for name in ("stage1_only", "full") if any(row["name"] == name for row in rows)],
        landmark_judge=judges.detector.name,
        perceptual_net=f"{config.metrics.perceptual}-{config.metrics.net}",
        perceptual_size=config.metrics.perceptual_size,
        sync_net=judges.sync.name if judges.sync else None,
        absent=dict(judges.absent),
        tuned_on={"face": face.name, "clip": face.clip, "frames_before": face.used},
        data={"latents": latents.name, "kind": config.data.kind},
        config=plain(config),
        **provenance(),
    )
    write_tables(run.results, rows, judges.absent, report["strata"], reencoding_lines(report["reencoded"]))
    if run.first:
        print_table(rows)
    for name, file in (
        ("report", path),
        ("video", folder / "beside_truth.mp4"),
        ("strip", folder / "strip.png"),
    ):
        run.say(f"{name}: {shown(file)}")
    return path


def ridge_baseline(face: Face, cases: list[Case]) -> MelRidge | None:
    """The ridge row's regression from log-mel to lip aperture, fitted to the frames that stage 1 may be adapted to."""
    own = face.own
    if own is None or not any(case.full and case.split == "tuned" for case in cases):
        return None
    return fit_lips(own.sound, own.opening, own.known) if own.known.sum() >= LEAST else None


def _score_all(
    cases: list[Case],
    config: Config,
    run: Run,
    checkpoint: Path,
    person: Person,
    controls: Controls | None,
    judges: Judges,
) -> tuple[Evaluation, Preview]:
    """On a CPU the clips, or the rows of few clips, are divided among several processes, because one network call cannot use
    all cores. On a GPU, and with FID or FVD, whose features are collected over all clips, this process scores them.
    """
    ridge = ridge_baseline(person.face, cases)
    frames = {case.latents: len(LatentClip.load(case.latents)) - case.start for case in cases}
    every = stride_for(sum(frames.values()), config.metrics.perceptual_frames)
    # The longest clips come first, so that no process is left with a long clip at the end; `full` is one more row.
    cases = sorted(cases, key=lambda case: (case.full, frames[case.latents]), reverse=True)
    shared = (config, checkpoint, person, every, controls, ridge)
    evaluation = Evaluation(judges)
    divisible = run.device.type == "cpu" and not judges.keep_features
    if divisible and 2 * len(cases) <= config.workers:
        cases = [replace(case, rows=part) for case in cases for part in TWO_PARTS]
    workers = min(config.workers, len(cases))

    def alone() -> Iterator[Scored]:
        _start_worker(*shared, run=run, evaluation=evaluation)
        return map(_score_one, cases)

    if workers < 2 or not divisible:
        scored = alone()
    else:
        threads = max(1, torch.get_num_threads() // workers)
        scored = in_processes(_score_one, cases, workers, alone, run.say, _start_worker, (*shared, threads))
    results = list(track(scored, "evaluate", len(cases), transient=True))
    evaluation.scores = [score for scores, _ in results for score in scores]
    return evaluation, next(preview for _, preview in results if preview is not None)


_context: ScoringContext | None = None  # networks of this worker process


def _start_worker(
    config: Config,
    checkpoint: Path,
    person: Person,
    every: int,
    controls: Controls | None,
    ridge: MelRidge | None,
    threads: int = 0,
    run: Run | None = None,
    evaluation: Evaluation | None = None,
) -> None:
    """Builds the networks once for each process."""
    global _context
    run = run or start(replace(config, device="cpu", threads=threads), quiet=True)
    generator = build_renderer(config, run)
    if evaluation is None:
        evaluation = Evaluation(build_judges(config, run.device))
    _context = ScoringContext(
        generator=generator,
        model=build_predictor(checkpoint, config, run),
        evaluation=evaluation,
        every=every,
        controls=controls,
        tuned=None if person.tuned is None else load_person_generator(person, generator, config, run),
        adapted=None if person.adapted is None else load_stage1_for(person.adapted, checkpoint, config, run),
        reencode=config.metrics.reencode,
        ridge=ridge,
    )


def _score_one(case: Case) -> Scored:
    assert _context is not None
    return score_case(case, _context)


def _controls(cases: list[Case], training: Latents, run: Run) -> Controls:
    """Fits the control baselines to the data's training clips, except scored ones. Clips are read one at a time, because a
    real corpus does not fit into memory.
    """
    scored = {case.latents for case in cases}
    entries = [e for e in training.entries("train") if training.folder / e.file not in scored]
    if not entries:
        run.say("every training clip is scored: the rows mean_trajectory and energy are left out")
        return Controls()

    def displacements() -> Iterator[np.ndarray]:
        for entry in entries:
            codes = training.codes(entry)
            yield codes.w.astype(np.float32) - codes.w_ref

    clips = (training.frames(entry) for entry in entries)
    energies = [log_energy(clip.waveform, len(clip)) for clip in clips]
    return Controls(mean_displacement(displacements()), fit_energy(energies, displacements()))


def _table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The rows in a fixed order. The clips of the tuned person are listed a second time in the split "tuned", together
    with `full`; the argument `also` of Evaluation.add counted their frames there too.
    """
    scores = evaluation.scores
    tuned_clips = {score.clip for score in scores if score.row == "full"}
    again = [replace(s, split="tuned") for s in scores if s.clip in tuned_clips and s.split != "tuned"]
    evaluation.scores = scores + again
    rows = evaluation.rows()
    return sorted(rows, key=lambda row: (SPLITS.index(row["split"]), ROWS.index(row["name"])))


def _pictures(folder: Path, preview: Preview, scores: list[ClipScore]) -> None:
    save_image(folder / "strip.png", strip(list(preview.true), list(preview.predicted)))
    frames = side_by_side(preview.true, preview.predicted)
    write_video(folder / "beside_truth.mp4", frames, Waveform(preview.waveform))
    curves = {s.row: s.aperture for s in scores if s.clip == preview.clip and s.row in PLOTTED}
    true = next(s.true_aperture for s in scores if s.clip == preview.clip)
    plot_apertures(folder / "apertures.png", true, curves, preview.clip)
