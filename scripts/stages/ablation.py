"""The ablation's runs as one report: rows named as the experiments (configs/experiment/ablation), plus the controls.

Each experiment gives one row a split: on `tuned` what its own method ends with (its row `full`; `stage1_only` for the
experiment of that name), on `seen` and `unseen` its row `stage1_only`, since nobody is tuned there. Of several seeds the
clips' figures are averaged first, so that intervals are over clips and speakers, not over seeds; `seeds` lists each.
The report keeps what it took from every run (`runs`), so that runs of another day or machine can be added to it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metrics.measures.intervals import mean_over
from metrics.report.report_files import shown as figure
from metrics.report.report_files import write_report
from metrics.report.report_schema import ReportError, read_report
from metrics.scoring.clip_score import MEANS, ClipScore
from metrics.scoring.control_baselines import CONTROLS, SPLITS
from metrics.scoring.score_clips import summarise

EXPERIMENTS = (
    "full",
    "no_latent",
    "no_lpips",
    "stage1_only",
    "lstm",
    "rows_4_7",
    "no_identity",
    "mfcc",
    "no_calibration",
    "real_target",
)
MEASURES = ("psnr", "ssim", "lmd", "lmd_mouth", "lip_gain", "mouth_corr", "closure_recall", "perceptual")
SEEDED = ("lmd", "lmd_mouth", "mouth_corr")  # what `seeds` lists
# of every run, beside its clips
KEPT = ("weights", "perceptual_net", "perceptual_size", "data", "tuned_on", "code", "config")
OWN_WEIGHTS = ("trajectory", "tuned")  # what runs of one ablation differ in

Run = dict[str, Any]
Runs = dict[str, dict[int, Run]]  # experiment -> seed -> what is kept of its report


def ablation_runs(results: Path, earlier: Path | None = None) -> Runs:
    """Every results/ablation_*/report.json, and the runs of an earlier ablation.json for what was not run here.

    Raises ReportError for a damaged one, or for runs that were scored on different clips or with different weights.
    """
    runs = _earlier_runs(earlier) if earlier else {}
    for path in sorted(results.glob("ablation_*/report.json")):
        report = read_report(path)
        config = report.get("config", {})
        named = str(config.get("name", "")).removeprefix("ablation_").rsplit("_seed", 1)[0]
        if named not in EXPERIMENTS or report.get("schema_version", 1) < 2:
            raise ReportError(
                f"{path} is of no experiment of configs/experiment/ablation: make it again or move it away"
            )
        runs.setdefault(named, {})[int(config.get("seed", 0))] = _kept(report, named)
    every = [run for seeds in runs.values() for run in seeds.values()]
    for what, seen in (("clips", _clips_of), ("judges", _judge_of), ("weights", _weights_of)):
        if len({seen(run) for run in every}) > 1:
            raise ReportError(
                f"the ablation_* runs under {results}{f' and {earlier}' if earlier else ''} were scored with different "
                f"{what}: give all the same corpus, metrics and weights"
            )
    return {name: dict(sorted(runs[name].items())) for name in EXPERIMENTS if name in runs}


def gather(runs: Runs, path: Path, **provenance: Any) -> dict[str, Any]:
    """Writes the one report to `path` and returns it. Controls are those of `full`, or of the first experiment."""
    scores: list[ClipScore] = []
    for name, seeds in _with_stage1_only(runs).items():
        for split in SPLITS:
            scores += _mean_scores(list(seeds.values()), _row(name, split), split, name)
    reports = list(next(iter(runs.values())).values())
    for control in CONTROLS:
        for split in SPLITS:
            scores += _mean_scores(reports, control, split, control)
    rows = sorted(summarise(scores), key=lambda row: SPLITS.index(row["split"]))
    first = reports[0]
    return write_report(
        path,
        rows,
        _shared_weights(first),
        sum(run["seconds"] for seeds in runs.values() for run in seeds.values()),
        scores,
        bases=["full"] if "full" in runs else [],
        perceptual_net=first.get("perceptual_net"),
        perceptual_size=first.get("perceptual_size"),
        data=first.get("data"),
        tuned_on=first.get("tuned_on"),
        seeds=_by_seed(runs),
        runs={
            name: {
                seed: run if name == next(iter(runs)) else _without_controls(run)
                for seed, run in seeds.items()
            }
            for name, seeds in runs.items()
        },
        code=first.get("code"),
        **provenance,
    )


def ablation_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, lines, notes: means with 95 % intervals over clips."""
    header = ["split", "row", *(measure.upper() for measure in MEASURES), "clips"]
    lines = []
    for row in report["rows"]:
        cells = []
        for measure in MEASURES:
            span = row.get("interval", {}).get(measure)
            text = figure(measure, row.get(measure))
            cells.append(
                text if not span else f"{text} [{figure(measure, span[0])}, {figure(measure, span[1])}]"
            )
        lines.append([row["split"], row["name"], *cells, str(row["n_clips"])])
    seeds = ", ".join(f"{name} {len(found)}" for name, found in report.get("seeds", {}).items())
    notes = [
        f"Embedded corpus, whose frames the generator itself made. Seeds: {seeds}; their clips' figures are averaged",
        "In seen and unseen nobody is tuned: there a row is the experiment's stage 1, shown by the generator as it came",
        "Brackets: 95 % of bootstrap means over clips",
    ]
    return header, lines, notes


def _kept(report: Mapping[str, Any], name: str) -> Run:
    """What the gathered report needs of one run: its method's clips, the controls, and where they come from."""
    clips = [
        record
        for record in report["clips"]
        if record["row"] in (*CONTROLS, "stage1_only") or record["row"] == _row(name, record["split"])
    ]
    return {"clips": clips, "seconds": _seconds(report)} | {key: report.get(key) for key in KEPT}


def _earlier_runs(path: Path) -> Runs:
    runs = read_report(path).get("runs")
    if not isinstance(runs, Mapping):
        raise ReportError(f"{path} does not list its runs: give an ablation.json of reproduce_tables.py")
    return {name: {int(seed): dict(run) for seed, run in seeds.items()} for name, seeds in runs.items()}


def _clips_of(run: Run) -> frozenset[tuple[str, str]]:
    return frozenset((c["clip"], c["split"]) for c in run["clips"] if c["row"] not in CONTROLS)


def _judge_of(run: Run) -> tuple[str | None, int | None]:
    return run.get("perceptual_net"), run.get("perceptual_size")


def _weights_of(run: Run) -> frozenset[tuple[str, str]]:
    return frozenset(_shared_weights(run).items())


def _shared_weights(run: Run) -> dict[str, str]:
    return {name: digest for name, digest in run["weights"].items() if name not in OWN_WEIGHTS}


def _without_controls(run: Run) -> Run:
    return run | {"clips": [record for record in run["clips"] if record["row"] not in CONTROLS]}


def _row(experiment: str, split: str) -> str:
    return "full" if split == "tuned" and experiment != "stage1_only" else "stage1_only"


def _with_stage1_only(runs: Runs) -> Runs:
    """The full method's own stage 1 stands for that experiment where it was not run by itself."""
    if "full" not in runs or "stage1_only" in runs:
        return runs
    both = runs | {"stage1_only": runs["full"]}
    return {name: both[name] for name in EXPERIMENTS if name in both}


def _mean_scores(reports: Sequence[Mapping[str, Any]], row: str, split: str, name: str) -> list[ClipScore]:
    """One score a clip, its figures the mean over the reports; a figure that one of them lacks is missing."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for report in reports:
        for record in report["clips"]:
            if record["row"] == row and record["split"] == split:
                found.setdefault(record["clip"], []).append(record)
    scores = []
    for clip, records in found.items():
        figures: dict[str, float | None] = {}
        for key in MEANS:
            values = [record["figures"].get(key) for record in records]
            figures[key] = None if None in values else mean_over(values)
        first = records[0]
        nothing = np.zeros(0)
        scores.append(
            ClipScore(name, split, clip, first["n_frames"], figures, nothing, nothing, first["speaker"])
        )
    return scores


def _by_seed(runs: Runs) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    """experiment -> seed -> split -> mean figures: how far a seed alone moves them."""
    return {
        name: {
            str(seed): {
                split: {key: mean_over([c["figures"].get(key) for c in mine]) for key in SEEDED}
                for split in SPLITS
                if (mine := [c for c in run["clips"] if (c["row"], c["split"]) == (_row(name, split), split)])
            }
            for seed, run in seeds.items()
        }
        for name, seeds in runs.items()
    }


def _seconds(report: Mapping[str, Any]) -> float:
    seconds = report["seconds"]
    return sum(seconds.values()) if isinstance(seconds, Mapping) else float(seconds)
