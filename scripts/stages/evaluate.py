"""With predictions= and references=, two folders of videos of the same relative names, it scores any method's videos
against the truth and writes report.json with its tables and pictures to output= (scripts/stages/evaluate_folders.py). Without them it
scores stage 1 and the tuned generator on test clips, beside the controls, and writes results/<name>/report.json (with
.md and .csv) and results/<name>/evaluate/ (strip, aperture plot, video beside the truth). What is missing is made
first, from the corpus on.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from audio.waveform import Waveform
from configs.schema import Config
from encoders.footage.video_writer import write_video
from encoders.manifest import ClipEntry, read_manifest
from encoders.records import FrameClip, LatentClip
from encoders.ridge_regression import LEAST
from metrics.report.plots import plot_apertures, save_image, side_by_side, strip
from metrics.report.report_files import print_table, write_report, write_tables
from metrics.scoring.clip_score import ClipScore, Judges
from metrics.scoring.control_baselines import (
    ROWS,
    SPLITS,
    fit_energy,
    log_energy,
    mean_displacement,
    wrong_audio,
)
from metrics.scoring.ridge_baseline import MelRidge, fit_lips
from metrics.scoring.score_clips import Evaluation, stride_for
from scripts.core.networks import renderer_path, the_renderer, the_trajectory, weight_hashes
from scripts.core.provenance import plain, provenance, stage_seconds
from scripts.core.runtime import Run, RunError, shown, start
from scripts.stages.adapt_stage1 import adapted_on, demand_speech, found_adapted, load_stage1_for
from scripts.stages.evaluate_case import Case, Controls, Kept, Tools, score_case
from scripts.stages.evaluate_folders import compare
from scripts.stages.evaluators import judge_hashes, the_judges
from scripts.stages.invert_frames import fitted_frames, invert_frames, portrait_clip
from scripts.stages.train_stage1 import stage1_run, taught_on, train_stage1
from scripts.stages.train_stage2 import Face, the_face, tuned_on, tuning_clip
from tuning.tuned_weights import load_tuned

Personal = tuple[Path, str, Path | None]  # tuned generator, hash of its base, stage 1 adapted to the person
TAUGHT = ("train", "val")  # splits that stage 1 learns from, or is chosen by
PLOTTED = ("inversion", "energy", "ridge", "stage1_only", "full")


def evaluate(config: Config, run: Run) -> Path:
    """report.json of this run's test clips, or of two folders of videos."""
    if config.predictions or config.references:
        return compare(config, run)
    if config.against:
        raise RunError("against= compares two methods' videos: give predictions= and references= too.")
    latents = invert_frames(config, run)
    chosen = chosen_clips(latents, config)  # says now, not after training, that none is left to test
    checkpoint = train_stage1(config, run)
    face = the_face(replace(config, photo=None, clip=None), run)
    demand_speech(face.own, face.name, config)
    tuned = tuned_on(face, config, run)
    if config.adapt.enabled and face.own is not None and config.adapted == "auto":
        adapted_on(face.own, face.name, tuned.parent, checkpoint, config, run)
    adapted = found_adapted(face.own, tuned.parent, checkpoint, config)
    with run.timed("evaluate"):
        cases = test_cases(chosen, config, run, latents, face, adapted is not None)
        run.say(f"scoring {len(cases)} clips: {', '.join(sorted({case.split for case in cases}))}")
        judges = the_judges(config, run.device)
        files = {"renderer": renderer_path(config, run), "trajectory": checkpoint, "tuned": tuned}
        files |= {"adapted": adapted} if adapted else {}
        hashes = weight_hashes(config, **files) | judge_hashes(config, judges)
        personal = (tuned, hashes["renderer"], adapted)
        evaluation, kept = _score_all(cases, config, run, checkpoint, personal, ridge_of(face, cases), judges)
    rows = _table(evaluation)
    folder = run.results / "evaluate"
    _pictures(folder, kept, evaluation.scores)
    path = run.results / "report.json"
    write_report(
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
    write_tables(run.results, rows, judges.absent)
    if run.first:
        print_table(rows)
    for name, file in (
        ("report", path),
        ("video", folder / "beside_truth.mp4"),
        ("strip", folder / "strip.png"),
    ):
        run.say(f"{name}: {shown(file)}")
    return path


# ------------------------------------------------------------------------------------------------ what is scored


def chosen_clips(latents: Path, config: Config) -> list[tuple[ClipEntry, str]]:
    """Test clips and where they are listed, at most metrics.clips of each split. Raises RunError if none is left.

    Left out: what stage 1 has learnt, and the clip that shows who a speaker is (stage 2 and the person's offset are
    fitted to it), unless it is the speaker's only one.
    """
    if config.tuned != "auto":
        raise RunError("tuned= is for generate.py: what is scored is the generator that this run tunes.")
    entries = read_manifest(latents).ok()
    clip, only = tuning_clip(entries, config)
    speaker = clip.speaker
    portraits = [portrait_clip(entries, name) for name in {e.speaker for e in entries}]
    fitted = {portrait.name for portrait, alone in portraits if not alone}
    test = [e for e in entries if e.split in ("seen", "unseen") and e.name not in fitted]
    chosen: list[tuple[ClipEntry, str]] = []
    if only:  # own footage: the rest of the clip that was tuned on
        chosen = [(clip, "tuned")]
        if clip.split in TAUGHT and not taught_elsewhere(latents, config):
            raise RunError(
                f"Stage 1 has learnt the whole of {clip.name}, the only clip of {speaker}, so it cannot be tested on it: "
                "give stage1.source=embedded (experiment=own_clip), stage1.weights=FILE or more clips."
            )
    else:
        for split in ("seen", "unseen"):
            mine = [
                e
                for e in test
                if e.split == split and (e.speaker == speaker or not config.metrics.target_only)
            ]
            chosen += [(e, split) for e in spread(mine, config.metrics.clips)]
        if taught_elsewhere(latents, config):
            mine = [e for e in entries if e.split in TAUGHT and e.speaker == speaker and e.name != clip.name]
            chosen += [(e, "tuned") for e in spread(mine, config.metrics.clips)]
    if not chosen and config.metrics.target_only:
        raise RunError(
            f"With metrics.target_only only {speaker} is scored, and no test clip shows {speaker}: name another "
            "target.speaker, or score everybody."
        )
    if not chosen:
        raise RunError(
            f"No clip is left to test: stage 1 has learnt them all but what {speaker}'s generator was tuned on. Give "
            "data.seen or data.unseen a share, or stage1.source=embedded."
        )
    return chosen


def test_cases(
    chosen: list[tuple[ClipEntry, str]],
    config: Config,
    run: Run,
    latents: Path,
    face: Face,
    adapted: bool = False,
) -> list[Case]:
    """The chosen clips with all that drives their rows; the tuned face's own are scored with both generators.

    Of a speaker's only clip the first frames, which stage 2 was tuned on or the person's offset was found on, are left
    out. adapted: stage 1 knows this person's voice, so their clips are listed as tuned only.
    """
    manifest = read_manifest(latents)
    prepared = run.data / manifest.notes["prepared"]
    entries = manifest.ok()
    speaker = next(e.speaker for e in entries if e.name == face.clip)
    others = _wrong([e for e, _ in chosen], entries)
    cases = []
    for (entry, split), other in zip(chosen, others, strict=True):
        codes = LatentClip.load(latents / entry.file)
        mine = entry.name == face.clip
        _, alone = portrait_clip(entries, entry.speaker)
        start = fitted_frames(len(codes), config) if alone else 0
        cases.append(
            Case(
                clip=prepared / entry.file,
                latents=latents / entry.file,
                wrong=None if other is None else prepared / other.file,
                split="tuned" if adapted and entry.speaker == speaker else split,
                start=face.used if mine else start,
                ref_index=face.ref_index if mine else codes.ref_index,
                w_ref=face.w_ref if mine else codes.w_ref,
                full=entry.speaker == speaker,
                keep=False,
            )
        )
    shown_case = next((i for i, case in enumerate(cases) if case.full), 0)
    cases[shown_case] = replace(cases[shown_case], keep=True)
    return cases


def taught_elsewhere(latents: Path, config: Config) -> bool:
    """Whether stage 1 has seen none of these clips, whatever their split. A file is taken to be, unless the recipe beside
    it names these codes."""
    if config.stage1.weights is not None:
        return taught_on(Path(config.stage1.weights)) != latents.name
    return config.stage1.source == "embedded" and config.data.kind != "embedded"


def spread(entries: list[ClipEntry], most: int) -> list[ClipEntry]:
    """At most `most` of them: the speakers in turn, each beginning one clip later than the speaker before.

    Corpora list every speaker's clips alike (free sentences before GRID's), so the first of each are of one kind.
    """
    of_speaker: dict[str, list[ClipEntry]] = {}
    for entry in entries:
        of_speaker.setdefault(entry.speaker, []).append(entry)
    turned = [
        clips[i % len(clips) :] + clips[: i % len(clips)] for i, clips in enumerate(of_speaker.values())
    ]
    rounds = [entry for turn in zip_longest(*turned) for entry in turn if entry is not None]
    chosen = {entry.name for entry in rounds[:most]}
    return [entry for entry in entries if entry.name in chosen]


def _wrong(chosen: list[ClipEntry], entries: list[ClipEntry]) -> list[ClipEntry | None]:
    """For each clip one with other speech: among the chosen ones, or among all if there is but one."""
    if len(chosen) > 1:
        return [chosen[i] for i in wrong_audio([e.sentence for e in chosen])]
    return [next((o for o in entries if o.sentence != e.sentence), None) for e in chosen]


# ------------------------------------------------------------------------------------------------------- scoring


def ridge_of(face: Face, cases: list[Case]) -> MelRidge | None:
    """The ridge row's regression, where stage 1 may have heard the person too: on the same frames."""
    own = face.own
    if own is None or not any(case.full and case.split == "tuned" for case in cases):
        return None
    return fit_lips(own.sound, own.opening, own.known) if own.known.sum() >= LEAST else None


def _score_all(
    cases: list[Case],
    config: Config,
    run: Run,
    checkpoint: Path,
    personal: Personal,
    ridge: MelRidge | None,
    judges: Judges,
) -> tuple[Evaluation, Kept]:
    """Over processes on a CPU, where one network call cannot fill the cores; in this process on a GPU, and for FID,
    whose features are gathered over all clips."""
    lengths = [len(LatentClip.load(case.latents)) - case.start for case in cases]
    every = stride_for(sum(lengths), config.metrics.perceptual_frames)
    # The longest first, so that the last ones, which leave a process idle, are short; `full` is a row more.
    order = sorted(range(len(cases)), key=lambda i: (cases[i].full, lengths[i]), reverse=True)
    cases = [cases[i] for i in order]
    shared = (config, checkpoint, personal, every, _controls(cases, config, run), ridge)
    evaluation = Evaluation(judges)
    workers = min(config.workers, len(cases))
    if workers < 2 or run.device.type != "cpu" or judges.inception is not None:
        _start_worker(*shared, run=run, evaluation=evaluation)
        results = [_score_one(case) for case in track(cases, "evaluate", transient=True)]
    else:
        threads = max(1, torch.get_num_threads() // workers)
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, context, _start_worker, (*shared, threads)) as pool:
            results = list(track(pool.map(_score_one, cases), "evaluate", len(cases), transient=True))
    evaluation.scores = [score for scores, _ in results for score in scores]
    return evaluation, next(kept for _, kept in results if kept is not None)


_tools: Tools | None = None  # of this process


def _start_worker(
    config: Config,
    checkpoint: Path,
    personal: Personal,
    every: int,
    controls: Controls | None,
    ridge: MelRidge | None,
    threads: int = 0,
    run: Run | None = None,
    evaluation: Evaluation | None = None,
) -> None:
    """Builds the networks once for each process."""
    global _tools
    run = run or start(replace(config, device="cpu", threads=threads), quiet=True)
    generator = the_renderer(config, run)
    if evaluation is None:
        evaluation = Evaluation(the_judges(config, run.device))
    _tools = Tools(
        generator=generator,
        tuned=load_tuned(personal[0], generator, personal[1]),
        model=the_trajectory(checkpoint, config, run),
        controls=controls,
        ridge=ridge,
        adapted=None if personal[2] is None else load_stage1_for(personal[2], checkpoint, config, run),
        every=every,
        evaluation=evaluation,
    )


def _score_one(case: Case) -> tuple[list[ClipScore], Kept | None]:
    assert _tools is not None
    return score_case(case, _tools)


def _controls(cases: list[Case], config: Config, run: Run) -> Controls | None:
    """Of the clips that stage 1 was trained on (with stage1.weights=FILE: this data's), less those that are scored; they
    pass by one at a time, since a real corpus does not fit into memory."""
    if not config.metrics.controls:
        return None
    config, run = stage1_run(config, run)
    latents = invert_frames(config, run)
    manifest = read_manifest(latents)
    scored = {case.latents for case in cases}
    entries = [e for e in manifest.ok("train") if latents / e.file not in scored]
    if not entries:
        run.say(
            "no training clip but those that are scored: the rows mean_trajectory and energy are left out"
        )
        return None

    def displacements() -> Iterator[np.ndarray]:
        for entry in entries:
            codes = LatentClip.load(latents / entry.file)
            yield codes.w.astype(np.float32) - codes.w_ref

    clips = (FrameClip.load(run.data / manifest.notes["prepared"] / entry.file) for entry in entries)
    energies = [log_energy(clip.waveform, len(clip)) for clip in clips]
    return Controls(mean_displacement(displacements()), fit_energy(energies, displacements()))


def _table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows in a fixed order; the clips of the tuned face are listed once more, beside `full` (as Evaluation.add's `also`
    counted their frames)."""
    scores = evaluation.scores
    face = {score.clip for score in scores if score.row == "full"}
    again = [replace(s, split="tuned") for s in scores if s.clip in face and s.split != "tuned"]
    evaluation.scores = scores + again
    rows = evaluation.rows()
    return sorted(rows, key=lambda row: (SPLITS.index(row["split"]), ROWS.index(row["name"])))


def _pictures(folder: Path, kept: Kept, scores: list[ClipScore]) -> None:
    save_image(folder / "strip.png", strip(list(kept.true), list(kept.made)))
    write_video(folder / "beside_truth.mp4", side_by_side(kept.true, kept.made), Waveform(kept.waveform))
    curves = {s.row: s.aperture for s in scores if s.clip == kept.clip and s.row in PLOTTED}
    true = next(s.true_aperture for s in scores if s.clip == kept.clip)
    plot_apertures(folder / "apertures.png", true, curves, kept.clip)
