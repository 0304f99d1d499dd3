"""Anybody's videos against the truth: two folders of the same relative names -> report.json, tables, pictures.

This is `evaluate.py predictions=DIR references=DIR`. It needs no checkpoint and no generator. A file that cannot be
scored is listed with the reason, counts as a black video where it is the method's fault, and makes the exit code 1.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from configs.schema import Config
from encoders.footage.video_reader import VideoError, iter_frames, probe
from metrics.measures.kid import Features
from metrics.report.html_page import remarks
from metrics.report.paired_differences import clip_records, compare_reports
from metrics.report.report_files import print_table, write_report, write_tables
from metrics.report.report_schema import read_report
from metrics.scoring.clip_score import ClipScore, Judges
from metrics.scoring.score_clips import stride_for, summarise, with_frechet
from metrics.scoring.score_videos import CONTROLS, RULES, PairOptions, PairResult, score_pair
from scripts.core.provenance import plain, provenance
from scripts.core.runtime import Run, RunError, shown, start
from scripts.stages.evaluators import distance_columns, judge_hashes, the_judges
from scripts.stages.matched_videos import (
    Pair,
    Prediction,
    expected_frames,
    facts,
    matched,
    note_oddities,
    note_result,
    sound_of,
)
from scripts.stages.report_page import MOST_CLIPS, badness, write_pages

Scored = tuple[dict[str, Any], PairResult | None]  # of one name: its record in the report, its scores


def compare(config: Config, run: Run) -> Path:
    """report.json of the method in config.predictions; raises RunError after writing it if something was not scored."""
    if config.predictions is None or config.references is None:
        raise RunError("predictions= and references= belong together: give both folders.")
    predictions, references = (Path(p) for p in (config.predictions, config.references))
    pairs = matched(predictions, references)
    judges = the_judges(config, run.device, two_folders=True)
    method, other = method_name(predictions), the_other(config, judges)
    output = Path(config.output) if config.output else run.results / "compare" / method
    scores: list[ClipScore] = []
    features: dict[str, Features] = {}
    with run.timed("compare"):
        stream = _score_all(pairs, method, config, run, judges)
        results = list(_gathered(stream, scores, features))
    files = [record for record, _ in results]
    if not scores:
        reasons = "; ".join(dict.fromkeys(f"{f['name']}: {f['reason']}" for f in files if f["reason"]))
        raise RunError(f"Nothing could be scored: {reasons}")
    order = [method, *CONTROLS]
    rows = with_frechet(
        summarise(scores), {(row, "all"): found for row, found in features.items()}, judges.no_inception
    )
    rows = sorted(rows, key=lambda row: order.index(row["name"]))
    path = output / "report.json"
    report = write_report(
        path,
        rows,
        judge_hashes(config, judges),
        run.seconds,
        scores,
        bases=[method],
        paired=[compare_reports(clip_records(scores), method, "all", other, str(config.against))]
        if other
        else [],
        method=method,
        crop=config.metrics.crop,
        rules=RULES,
        landmark_judge=judges.detector.name,
        perceptual_net=sorted(distance_columns(config.metrics)),
        perceptual_size=config.metrics.perceptual_size,
        sync_net=judges.sync.name if judges.sync else None,
        absent=dict(judges.absent),
        files=files,
        config=plain(config),
        **provenance(),
    )
    write_tables(output, rows, judges.absent)
    write_pages(output, report, pairs, {record["name"]: result for record, result in results if result})
    if run.first:
        print_table(rows)
    bad = [f for f in files if f["status"] != "scored"]
    for record in files:
        for note in remarks(record):
            run.say(f"  {record['name']}: {note}")
    for line in report["warnings"]:
        run.say(f"  warning: {line}")
    run.say(f"report: {shown(path)}, to look at: {shown(output / 'index.html')}")
    if bad:
        names = ", ".join(f"{f['name']} ({f['status']})" for f in bad)
        raise RunError(
            f"{len(bad)} of {len(files)} names were not scored as they are: {names}; see {shown(path)}."
        )
    return path


def _gathered(
    stream: Iterable[Scored], scores: list[ClipScore], sums: dict[str, Features]
) -> Iterator[Scored]:
    """Moves what is large out of each result as it comes: scores and features into the given collections, pictures
    away but for the clips that the page shows, so that memory hardly grows with the number of clips."""
    shown_clips: list[PairResult] = []
    for record, result in stream:
        if result is not None:
            scores += result.scores
            for row, features in result.features.items():
                sums.setdefault(row, Features()).merge(features)
            result.features = {}
            shown_clips = sorted([*shown_clips, result], key=badness)
            for left in shown_clips[MOST_CLIPS:]:
                left.best, left.worst = [], []
            del shown_clips[MOST_CLIPS:]
        yield record, result


def the_other(config: Config, judges: Judges) -> dict[str, Any] | None:
    """The report of another method (against=), if it can be compared with. Raises RunError or ReportError."""
    if config.against is None:
        return None
    path = Path(config.against)
    other = read_report(path)
    if "method" not in other or other.get("crop") != config.metrics.crop:
        raise RunError(
            f"against={path} must be a report of predictions= and references= with metrics.crop="
            f"{config.metrics.crop}, it has {other.get('crop') or 'no crop'}."
        )
    ours = {"landmark_judge": judges.detector.name, "perceptual_size": judges.perceptual_size}
    ours |= judge_hashes(config, judges)
    theirs = {**other, **other["weights"]}
    if differ := [name for name in ours if name in theirs and theirs[name] != ours[name]]:
        raise RunError(
            f"against={path} was judged by another {differ[0]} than this run has: score both alike, the differences are of "
            "the judges else."
        )
    return other


def method_name(predictions: Path) -> str:
    """The folder's name; a control's name would be mistaken for the control."""
    name = predictions.resolve().name or "prediction"
    return f"{name}_method" if name in CONTROLS else name


# ------------------------------------------------------------------------------------------------------- scoring


def _score_all(pairs: list[Pair], method: str, config: Config, run: Run, judges: Judges) -> Iterator[Scored]:
    """Over processes on a CPU, where dlib has one thread; in this process on a GPU, or for FID, whose sums are
    large."""
    frames = sum(expected_frames(pair.reference) for pair in pairs if pair.reference)
    metrics = config.metrics
    options = PairOptions(
        metrics.crop, stride_for(frames, metrics.perceptual_frames), metrics.batch, metrics.controls
    )
    run.say(f"scoring {len(pairs)} names of {method}, {frames} frames, crop {metrics.crop}")
    workers = min(config.workers, len(pairs))
    if workers < 2 or run.device.type != "cpu" or judges.inception is not None:
        for pair in track(pairs, "evaluate", transient=True):
            yield score_one(pair, method, judges, options)
        return
    threads = max(1, torch.get_num_threads() // workers)
    with ProcessPoolExecutor(
        workers, get_context("spawn"), _start_worker, (config, method, options, threads)
    ) as pool:
        yield from track(pool.map(_score_here, pairs), "evaluate", len(pairs), transient=True)


_worker: tuple[str, Judges, PairOptions] | None = None  # of this process


def _start_worker(config: Config, method: str, options: PairOptions, threads: int) -> None:
    global _worker
    run = start(replace(config, device="cpu", threads=threads), quiet=True)
    _worker = method, the_judges(config, run.device, two_folders=True), options


def _score_here(pair: Pair) -> Scored:
    assert _worker is not None
    method, judges, options = _worker
    return score_one(pair, method, judges, options)


def score_one(pair: Pair, method: str, judges: Judges, options: PairOptions) -> Scored:
    """The record of one name for the report, and its scores: None if there is no truth to compare with."""
    record: dict[str, Any] = {"name": pair.name, "status": "scored", "reason": None, "notes": []}
    if pair.reference is None:
        return record | {"status": "extra", "reason": "there is no reference of this name"}, None
    try:
        true_info = probe(pair.reference)
        record |= {"reference": facts(true_info)}
        note_oddities(record, "reference", true_info)
        prediction = Prediction(pair.prediction)
        sound = sound_of(record, pair.reference, true_info) if judges.sync is not None else None
        frames = iter_frames(pair.reference), iter(prediction)
        result = score_pair(method, pair.name, pair.speaker, *frames, judges, options, sound=sound)
    except (VideoError, ValueError) as error:
        return record | {"status": "bad_reference", "reason": str(error)}, None
    if prediction.info is not None:
        record |= {"prediction": facts(prediction.info)}
        note_oddities(record, "prediction", prediction.info)
    note_result(record, prediction, result)
    return record, result
