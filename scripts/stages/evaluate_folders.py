"""Scores any method's videos against the truth: two folders of the same relative names -> report.json, tables, index.html.

This is `evaluate.py predictions=DIR references=DIR`. It needs neither a checkpoint nor a generator. A file that cannot be
scored is listed with the reason and makes the exit code 1; if the prediction is at fault, it counts as a black video.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from configs.schema import Config
from encoders.footage.corpora import VIDEOS, paths_under
from encoders.footage.file_names import legible
from metrics.measures.kid import Features
from metrics.report.html_page import MOST_CLIPS, mouth_correlation, write_page
from metrics.report.paired_differences import clip_records, compare_reports
from metrics.report.reencoding_moves import reencoding_lines
from metrics.report.report_files import print_table, write_report, write_tables
from metrics.report.report_schema import read_report
from metrics.scoring import score_unpaired
from metrics.scoring.reencoding import REENCODED
from metrics.scoring.row_accumulator import Judges
from metrics.scoring.score_clips import stride_for, summarise, with_frechet
from metrics.scoring.score_videos import CONTROLS, RULES, PairOptions, PairResult
from metrics.scoring.video_files import FileRecord, VideoPair, expected_frames, remarks, score_files
from scripts.core.processes import in_processes
from scripts.core.provenance import plain, provenance
from scripts.core.runtime import Run, RunError, shown, start
from scripts.stages.evaluators import build_judges, distance_columns, judge_hashes

UNMEASURED = {  # columns of an unpaired evaluation that stay empty, and why
    ", ".join(
        (*score_unpaired.LEFT_OUT, "lip_gain")
    ): "metrics.unpaired=true, the predictions say something else"
}
Scored = tuple[FileRecord, PairResult | None]  # all files of one relative name


def compare(config: Config, run: Run) -> Path:
    """report.json of the method in config.predictions; raises RunError after writing it if something was not scored."""
    if config.predictions is None or config.references is None:
        raise RunError("predictions= and references= belong together: give both folders.")
    predictions, references = Path(config.predictions), Path(config.references)
    if config.metrics.unpaired:  # no perceptual distance compares frames
        config = replace(config, metrics=replace(config.metrics, nets=()))
    pairs = matched(predictions, references)
    judges = build_judges(config, run.device, two_folders=True)
    method, other = method_name(predictions), read_other_report(config, judges)
    output = Path(config.output) if config.output else run.results / "compare" / method

    # Scores of all pairs
    with run.timed("compare"):
        files, results, features = _collected(_score_all(pairs, method, config, run, judges))
    scores = [score for result in results.values() for score in result.scores]
    if not scores:
        reasons = "; ".join(dict.fromkeys(f"{f['name']}: {f['reason']}" for f in files if f["reason"]))
        raise RunError(f"Nothing could be scored: {reasons}")

    # Report, tables, page
    order, unpaired = [method, *CONTROLS, REENCODED], config.metrics.unpaired
    absent = dict(judges.absent) | (UNMEASURED if unpaired else {})
    rows = with_frechet(summarise(scores), features, judges)
    rows = sorted(rows, key=lambda row: order.index(row["name"]))
    paired = []
    if other is not None:
        paired = [compare_reports(clip_records(scores), method, "all", other, str(config.against))]
    path = output / "report.json"
    report = write_report(
        path,
        rows,
        judge_hashes(config, judges),
        run.seconds,
        scores,
        bases=[method],
        paired=paired,
        method=method,
        crop=config.metrics.crop,
        unpaired=unpaired,
        rules=score_unpaired.RULES if unpaired else RULES,
        landmark_judge=judges.detector.name,
        perceptual_net=sorted(distance_columns(config.metrics)),
        perceptual_size=config.metrics.perceptual_size,
        sync_net=judges.sync.name if judges.sync else None,
        absent=absent,
        files=files,
        config=plain(config),
        **provenance(),
    )
    write_tables(output, rows, absent, report["strata"], reencoding_lines(report["reencoded"]))
    write_page(output, report, pairs, results)

    # Print the table, remarks and warnings
    if run.first:
        print_table(rows)
    for record in files:
        for note in remarks(record):
            run.say(f"  {record['name']}: {note}")
    for line in report["warnings"]:
        run.say(f"  warning: {line}")
    run.say(f"report: {shown(path)}, to look at: {shown(output / 'index.html')}")
    if bad := [f"{f['name']} ({f['status']})" for f in files if f["status"] != "scored"]:
        raise RunError(
            f"{len(bad)} of {len(files)} names were not scored, or only after changes: {', '.join(bad)}; see {shown(path)}."
        )
    return path


def matched(predictions: Path, references: Path) -> list[VideoPair]:
    """All names of both folders, sorted. Raises RunError."""
    predicted, true = _videos(predictions, "predictions"), _videos(references, "references")
    if not true:
        raise RunError(f"references={references} holds no video.")
    if not set(predicted) & set(true):
        raise RunError(
            f"No video in {predictions} has the relative name of one in {references}; "
            "a prediction of s1/a.mpg must be called s1/a.mp4."
        )
    names = sorted(set(predicted) | set(true))
    return [VideoPair(name, name.split("/")[0], true.get(name), predicted.get(name)) for name in names]


def _videos(folder: Path, what: str) -> dict[str, Path]:
    """Relative name without suffix -> file. An accented letter is one character in names written on Linux and Windows,
    and a letter with an accent after it in names written by macOS; here it is always one character, so that both match.
    """
    if not folder.is_dir():
        raise RunError(f"{what}={folder} is not a folder; give the folder that holds the videos.")
    videos: dict[str, Path] = {}
    for path in sorted(paths_under(folder)):
        if path.suffix.lower() in VIDEOS and path.is_file() and not path.name.startswith("."):
            name = unicodedata.normalize("NFC", legible(path.relative_to(folder).with_suffix("").as_posix()))
            if name in videos:
                raise RunError(
                    f"{videos[name]} and {path} have the same name without suffix; remove one of the two files."
                )
            videos[name] = path
    return videos


def method_name(predictions: Path) -> str:
    """The folder's name, with a suffix if another row has that name."""
    name = legible(predictions.resolve().name) or "prediction"
    return f"{name}_method" if name in (*CONTROLS, REENCODED) else name


def read_other_report(config: Config, judges: Judges) -> dict[str, Any] | None:
    """The report of another method (against=). Raises RunError if it was not made with the same judges, or ReportError."""
    if config.against is None:
        return None
    path = Path(config.against)
    other = read_report(path)
    if "method" not in other or other.get("crop") != config.metrics.crop:
        raise RunError(
            f"against={path} must be a report of predictions= and references= with metrics.crop="
            f"{config.metrics.crop}, it has {other.get('crop') or 'no crop'}."
        )
    if bool(other.get("unpaired")) != config.metrics.unpaired:
        raise RunError(f"against={path} was made with another metrics.unpaired than this run has.")
    required = {"landmark_judge": judges.detector.name, "perceptual_size": judges.perceptual_size}
    required |= judge_hashes(config, judges)
    given = {**other, **other["weights"]}
    if differ := [name for name in required if name in given and given[name] != required[name]]:
        raise RunError(
            f"against={path} was judged by another {differ[0]} than this run has: score both with the same judges, "
            "because figures of different judges are not comparable."
        )
    return other


# ------------------------------------------------------------------------------------------------------- scoring


def _collected(
    stream: Iterator[Scored],
) -> tuple[list[FileRecord], dict[str, PairResult], dict[tuple[str, str], Features]]:
    """Records, results by name, and features by (row, split) of all pairs. Features are merged and images are kept only
    for the clips on the page, so memory hardly grows with the number of pairs.
    """
    files: list[FileRecord] = []
    results: dict[str, PairResult] = {}
    features: dict[tuple[str, str], Features] = {}
    on_page: list[PairResult] = []
    for record, result in stream:
        files.append(record)
        if result is None:
            continue
        results[record["name"]] = result
        for row, row_features in result.features.items():
            features.setdefault((row, "all"), Features()).merge(row_features)
        result.features = {}
        on_page = sorted([*on_page, result], key=mouth_correlation)
        for dropped in on_page[MOST_CLIPS:]:
            dropped.best, dropped.worst = [], []
        del on_page[MOST_CLIPS:]
    return files, results, features


def _score_all(
    pairs: list[VideoPair], method: str, config: Config, run: Run, judges: Judges
) -> Iterator[Scored]:
    """On a CPU the pairs are divided among processes, because dlib uses one thread. On a GPU, and with FID, whose sums
    are large, this process scores them.
    """
    frames = sum(expected_frames(pair.reference) for pair in pairs if pair.reference)
    metrics = config.metrics
    options = PairOptions(
        metrics.crop,
        stride_for(frames, metrics.perceptual_frames),
        metrics.batch,
        metrics.controls,
        metrics.unpaired,
        metrics.reencode,
    )
    run.say(f"scoring {len(pairs)} names of {method}, {frames} frames, crop {metrics.crop}")
    workers = min(config.workers, len(pairs))

    def alone() -> Iterator[Scored]:
        return (score_files(pair, method, judges, options) for pair in pairs)

    if workers < 2 or run.device.type != "cpu" or judges.keep_features:
        scored = alone()
    else:
        settings = config, method, options, max(1, torch.get_num_threads() // workers)
        scored = in_processes(_score_in_worker, pairs, workers, alone, run.say, _start_worker, settings)
    yield from track(scored, "evaluate", len(pairs), transient=True)


_worker: tuple[str, Judges, PairOptions] | None = None  # judges of this worker process


def _start_worker(config: Config, method: str, options: PairOptions, threads: int) -> None:
    global _worker
    run = start(replace(config, device="cpu", threads=threads), quiet=True)
    _worker = method, build_judges(config, run.device, two_folders=True), options


def _score_in_worker(pair: VideoPair) -> Scored:
    assert _worker is not None
    return score_files(pair, *_worker)
