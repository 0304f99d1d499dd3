"""Anybody's videos against the truth: two folders of the same relative names -> report.json, tables, pictures.

This is `evaluate.py predictions=DIR references=DIR`. It needs no checkpoint and no generator. A file that cannot be
scored is listed with the reason, counts as a black video where it is the method's fault, and makes the exit code 1.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from audio.timing import FPS
from configs.schema import Config, MetricsConfig
from encoders.faces import dlib_model_path
from encoders.identity import MODEL, DlibIdentity
from encoders.perceptual import load_perceptual, trunk_path
from encoders.video import VideoError, VideoInfo, iter_frames, probe
from metrics.evaluate import ClipScore, Judges, stride_for, summarise, with_frechet
from metrics.frechet import inception_path, load_inception
from metrics.html import remarks
from metrics.kid import Features
from metrics.paired import clip_records, compare_reports
from metrics.pairs import CONTROLS, RULES, PairOptions, PairResult, score_pair
from metrics.report import print_table, write_report, write_tables
from metrics.schema import read_report
from scripts.pages import MOST_CLIPS, badness, write_pages
from scripts.prepare_data import VIDEOS
from scripts.provenance import plain, provenance
from scripts.runtime import Run, RunError, shown, start
from scripts.stages import the_detector
from stylegan2.weights import file_hash

Scored = tuple[dict[str, Any], PairResult | None]  # of one name: its record in the report, its scores


@dataclass(frozen=True)
class Pair:
    """One name: the truth's file, and the method's if there is one. speaker: the first sub-folder, or the name."""

    name: str
    speaker: str
    reference: Path | None
    prediction: Path | None


def compare(config: Config, run: Run) -> Path:
    """report.json of the method in config.predictions; raises RunError after writing it if something was not scored."""
    if config.predictions is None or config.references is None:
        raise RunError("predictions= and references= belong together: give both folders.")
    predictions, references = (Path(p).expanduser() for p in (config.predictions, config.references))
    pairs = matched(predictions, references)
    output = Path(config.output).expanduser() if config.output else run.results / "compare"
    method, other = method_name(predictions), the_other(config)
    missing = load_inception()[1] if config.metrics.fid else "metrics.fid=false"
    scores: list[ClipScore] = []
    features: dict[str, Features] = {}
    with run.timed("compare"):
        stream = _score_all(pairs, method, config, run, alone=missing is None)
        results = list(_gathered(stream, scores, features))
    files = [record for record, _ in results]
    if not scores:
        reasons = "; ".join(dict.fromkeys(f"{f['name']}: {f['reason']}" for f in files if f["reason"]))
        raise RunError(f"Nothing could be scored: {reasons}")
    order = [method, *CONTROLS]
    rows = with_frechet(summarise(scores), {(row, "all"): found for row, found in features.items()}, missing)
    rows = sorted(rows, key=lambda row: order.index(row["name"]))
    path = output / "report.json"
    report = write_report(
        path,
        rows,
        _hashes(config),
        run.seconds,
        scores,
        bases=[method],
        paired=[compare_reports(clip_records(scores), method, "all", other, str(config.against))]
        if other
        else [],
        method=method,
        crop=config.metrics.crop,
        rules=RULES,
        perceptual_net=sorted(distance_columns(config.metrics)),
        perceptual_size=config.metrics.perceptual_size,
        files=files,
        config=plain(config),
        **provenance(),
    )
    write_tables(output, rows)
    write_pages(output, report, pairs, {record["name"]: result for record, result in results if result})
    if run.fabric.is_global_zero:
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


def the_other(config: Config) -> dict[str, Any] | None:
    """The report of another method (against=), if it can be compared with. Raises RunError or ReportError."""
    if config.against is None:
        return None
    path = Path(config.against).expanduser()
    other = read_report(path)
    if "method" not in other or other.get("crop") != config.metrics.crop:
        raise RunError(
            f"against={path} must be a report of predictions= and references= with metrics.crop="
            f"{config.metrics.crop}, it has {other.get('crop') or 'no crop'}."
        )
    return other


def method_name(predictions: Path) -> str:
    """The folder's name; a control's name would be mistaken for the control."""
    name = predictions.resolve().name or "prediction"
    return f"{name}_method" if name in CONTROLS else name


def matched(predictions: Path, references: Path) -> list[Pair]:
    """All names of both folders, sorted. Raises RunError."""
    made, true = (
        _videos(folder, what) for folder, what in ((predictions, "predictions"), (references, "references"))
    )
    if not true:
        raise RunError(f"references={references} holds no video.")
    if not set(made) & set(true):
        raise RunError(
            f"No video in {predictions} has the relative name of one in {references}; "
            "a prediction of s1/a.mpg must be called s1/a.mp4."
        )
    names = sorted(set(made) | set(true))
    return [Pair(name, name.split("/")[0], true.get(name), made.get(name)) for name in names]


def _videos(folder: Path, what: str) -> dict[str, Path]:
    """Relative name without suffix -> file."""
    if not folder.is_dir():
        raise RunError(f"{what}={folder} is not a folder; give the folder that holds the videos.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in VIDEOS and path.is_file() and not path.name.startswith("."):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                raise RunError(
                    f"{found[name]} and {path} have the same name without suffix; remove one of them."
                )
            found[name] = path
    return found


# ------------------------------------------------------------------------------------------------------ networks


def distance_columns(metrics: MetricsConfig) -> dict[str, tuple[str, str]]:
    """Column -> (family, net): LPIPS, or ST-LPIPS where LPIPS has no weights on this machine."""
    found = {}
    for net in metrics.nets:
        family = "lpips" if trunk_path(net).is_file() else "st-lpips"
        found[f"{family.replace('-', '_')}_{net}"] = (family, net)
    return found


def the_judges(config: Config, device: torch.device) -> Judges:
    inception, missing = load_inception(device=device) if config.metrics.fid else (None, "metrics.fid=false")
    return Judges(
        detector=the_detector(config.data, str(device)),
        identity=DlibIdentity(),
        inception=inception,
        no_inception=missing,
        distances={
            name: load_perceptual(net, family).to(device)  # type: ignore[arg-type]
            for name, (family, net) in distance_columns(config.metrics).items()
        },
        perceptual_size=config.metrics.perceptual_size,
        device=str(device),
        legacy=config.metrics.legacy,
    )


def _hashes(config: Config) -> dict[str, str]:
    """sha256 of the judges' weight files that lie on disk (those of LPIPS and ST-LPIPS go with their versions)."""
    files = {"identity": dlib_model_path(MODEL)}
    if config.data.detector == "dlib":
        files["landmarks"] = dlib_model_path()
    if config.metrics.fid and inception_path().is_file():
        files["inception"] = inception_path()
    return {name: file_hash(path) for name, path in files.items()}


# ------------------------------------------------------------------------------------------------------- scoring


def _score_all(pairs: list[Pair], method: str, config: Config, run: Run, alone: bool) -> Iterator[Scored]:
    """Over processes on a CPU, where dlib has one thread; in this process on a GPU, or if `alone` (for FID, whose
    sums are large)."""
    frames = sum(_expected_frames(pair.reference) for pair in pairs if pair.reference)
    metrics = config.metrics
    options = PairOptions(
        metrics.crop, stride_for(frames, metrics.perceptual_frames), metrics.batch, metrics.controls
    )
    run.say(f"scoring {len(pairs)} names of {method}, {frames} frames, crop {metrics.crop}")
    workers = min(config.workers, len(pairs))
    if workers < 2 or run.device.type != "cpu" or alone:
        judges = the_judges(config, run.device)
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
    _worker = method, the_judges(config, run.device), options


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
        record |= {"reference": _facts(true_info)}
        _note_oddities(record, "reference", true_info)
        prediction = Prediction(pair.prediction)
        result = score_pair(
            *(method, pair.name, pair.speaker, iter_frames(pair.reference), iter(prediction), judges, options)
        )
    except (VideoError, ValueError) as error:
        return record | {"status": "bad_reference", "reason": str(error)}, None
    if prediction.info is not None:
        record |= {"prediction": _facts(prediction.info)}
        _note_oddities(record, "prediction", prediction.info)
    _note_result(record, prediction, result)
    return record, result


class Prediction:
    """Frames of the method's video, its last one held; None from where there is none, with the reason in `error`."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.info: VideoInfo | None = None
        self.error: str | None = None if path else "there is no prediction of this name"
        self.read = self.held = 0

    def __iter__(self) -> Iterator[np.ndarray | None]:
        last = None
        try:
            if self.path is not None:
                self.info = probe(self.path)
                for last in iter_frames(self.path):
                    self.read += 1
                    yield last
        except VideoError as error:
            self.error, last = str(error), None
        while True:
            self.held += 1
            yield last


def _expected_frames(path: Path) -> int:
    try:
        return max(1, round(probe(path).duration * FPS))
    except VideoError:
        return 0


def _facts(info: VideoInfo) -> dict[str, Any]:
    return {key: value for key, value in asdict(info).items() if key != "start"} | {
        "start": float(info.start)
    }


def _note_oddities(record: dict[str, Any], what: str, info: VideoInfo) -> None:
    if abs(info.fps - FPS) > 0.01:
        record["notes"].append(f"the {what} has {info.fps:.3g} frames per second, read at {FPS}")
    if info.rotation:
        record["notes"].append(f"the {what} is turned by {info.rotation} degrees, as its header says")
    if not info.has_audio:
        record["notes"].append(f"the {what} has no sound")


def _note_result(record: dict[str, Any], prediction: Prediction, result: PairResult) -> None:
    frames = result.scores[0].n_frames + result.left_out
    record |= {"frames": frames, "frames_black": result.black, "frames_left_out": result.left_out}
    record |= {"frames_without_truth": result.unknown, "frames_held": 0}
    found = result.scores[0].figures["detection_rate"] or 0.0
    if prediction.path is None:
        record |= {"status": "missing", "reason": prediction.error}
    elif prediction.error:
        record |= {"status": "unreadable", "reason": prediction.error}
    elif result.other_shape and prediction.info and record["reference"]:
        sizes = [
            f"{side['width']} x {side['height']}" for side in (record["prediction"], record["reference"])
        ]
        reason = f"the prediction is {sizes[0]} px and the reference {sizes[1]}: cut both alike"
        record |= {"status": "other_shape", "reason": reason}
    else:
        record["frames_held"] = held = max(0, frames - prediction.read)
        surplus = round(prediction.info.duration * FPS) - frames if prediction.info else 0
        if held:
            record["notes"].append(f"the prediction is {held} frames shorter, its last picture is held")
        if surplus > 0:
            record["notes"].append(f"the prediction is {surplus} frames longer, they are not scored")
    if found < 1 and record["status"] == "scored":
        record["notes"].append(f"no face is found in {1 - found:.1%} of the prediction's frames")
    if result.left_out:
        record["notes"].append(f"{result.left_out} frames before the truth's first face are left out")
    if result.unknown:
        record["notes"].append(f"no face is found in {result.unknown} frames of the truth")
