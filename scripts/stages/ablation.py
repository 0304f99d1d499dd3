"""Gathers the runs of the ablation into one report, whose rows are the experiments of configs/experiment/ablation and the
control baselines.

On `tuned` an experiment's row is the last one of its method (`full`; `stage1_only` for the experiment of that name); on
`seen` and `unseen` it is `stage1_only`, since no generator is tuned for these speakers. The figures of a clip are first
averaged over seeds, so that intervals are over clips and speakers; `seeds` lists each seed. The report stores the clips
and provenance of every run (`runs`), so that runs made on another day or machine can be added later.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metrics.measures.intervals import mean_over
from metrics.report.report_files import format_figure, write_report
from metrics.report.report_schema import ReportError, read_report
from metrics.report.tables import Table
from metrics.scoring.control_baselines import CONTROLS, SPLITS
from metrics.scoring.row_accumulator import MEANS, ClipScore
from metrics.scoring.score_clips import summarise
from scripts.core.provenance import ROOT

FOLDER = ROOT / "configs" / "experiment" / "ablation"  # one file per experiment
# Order of the rows in docs/RESULTS.md; experiments that are not named here follow, by name
ORDER = (
    *("full", "no_latent", "no_lpips", "stage1_only", "lstm"),
    *("rows_4_7", "no_identity", "mfcc", "no_calibration", "real_target"),
)
MEASURES = ("psnr", "ssim", "lmd", "lmd_mouth", "lip_gain", "mouth_corr", "closure_recall", "perceptual")
SEED_MEASURES = ("lmd", "lmd_mouth", "mouth_corr")  # listed per seed
# Keys of a run's report that are kept beside its clips
KEPT_KEYS = ("weights", "perceptual_net", "perceptual_size", "data", "tuned_on", "code", "config")
OWN_WEIGHTS = ("trajectory", "tuned")  # weights that differ between the runs of one ablation

RunRecord = dict[str, Any]
Runs = dict[str, dict[int, RunRecord]]  # experiment -> seed -> stored part of its report


def experiments() -> list[str]:
    """Names of all experiments in configs/experiment/ablation, in the order of the table."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return [*(name for name in ORDER if name in names), *(name for name in names if name not in ORDER)]


def ablation_runs(results: Path, earlier: Path | None = None) -> Runs:
    """Every results/ablation_*/report.json, and the runs of an earlier ablation.json for experiments not run here.

    Raises ReportError for a damaged report, or for runs that were scored on different clips or with different weights.
    """
    names = experiments()
    runs = _earlier_runs(earlier) if earlier else {}
    for path in sorted(results.glob("ablation_*/report.json")):
        report = read_report(path)
        config = report.get("config", {})
        name = str(config.get("name", "")).removeprefix("ablation_").rsplit("_seed", 1)[0]
        if name not in names or report.get("schema_version", 1) < 2:
            raise ReportError(
                f"{path} belongs to no experiment of configs/experiment/ablation: make it again or move it to another folder"
            )
        runs.setdefault(name, {})[int(config.get("seed", 0))] = _run_record(report, name)
    every = [run for seeds in runs.values() for run in seeds.values()]
    for what, value_of in (("clips", _clips_of), ("judges", _judge_of), ("weights", _shared_weights)):
        if any(value_of(run) != value_of(every[0]) for run in every):
            raise ReportError(
                f"the ablation_* runs under {results}{f' and {earlier}' if earlier else ''} were scored with different "
                f"{what}: give all the same corpus, metrics and weights"
            )
    return {name: dict(sorted(runs[name].items())) for name in names if name in runs}


def gather(runs: Runs, path: Path, **provenance: Any) -> dict[str, Any]:
    """Writes the one report to `path` and returns it. The control baselines are those of `full`, or of the first
    experiment if `full` is absent.
    """
    first_name = next(iter(runs))
    reports = list(runs[first_name].values())
    first = reports[0]

    # Rows: the experiments, then the control baselines. The full method's stage 1 is also the experiment stage1_only.
    row_runs = dict(runs)
    if "full" in runs:
        row_runs.setdefault("stage1_only", runs["full"])
    scores: list[ClipScore] = []
    for name in (name for name in experiments() if name in row_runs):
        for split in SPLITS:
            scores += _mean_scores(list(row_runs[name].values()), _row(name, split), split, name)
    for control in CONTROLS:
        for split in SPLITS:
            scores += _mean_scores(reports, control, split, control)
    rows = sorted(summarise(scores), key=lambda row: SPLITS.index(row["split"]))

    # Controls are stored once, with the first experiment
    stored = {
        name: {seed: run if name == first_name else _without_controls(run) for seed, run in seeds.items()}
        for name, seeds in runs.items()
    }
    return write_report(
        path,
        rows,
        _shared_weights(first),
        sum(run["seconds"] for seeds in runs.values() for run in seeds.values()),
        scores,
        bases=["full"] if "full" in runs else [],
        **{key: first.get(key) for key in ("perceptual_net", "perceptual_size", "data", "tuned_on")},
        seeds=_by_seed(runs),
        runs=stored,
        code=first.get("code"),
        **provenance,
    )


def ablation_table(report: Mapping[str, Any]) -> Table:
    """Means with 95 % intervals over clips."""
    lines = [
        [
            *(row["split"], row["name"]),
            *(format_figure(m, row.get(m), row.get("interval", {}).get(m)) for m in MEASURES),
            str(row["n_clips"]),
        ]
        for row in report["rows"]
    ]
    seeds = ", ".join(f"{name} {len(seeds)}" for name, seeds in report.get("seeds", {}).items())
    notes = [
        f"Embedded corpus, whose frames the generator itself made. Seeds: {seeds}; their clips' figures are averaged",
        "In seen and unseen no generator is tuned: there a row is the experiment's stage 1, rendered by the untuned generator",
        "Brackets: 95 % of bootstrap means over clips",
    ]
    return Table(["split", "row", *(m.upper() for m in MEASURES), "clips"], lines, notes, words=2)


def _run_record(report: Mapping[str, Any], name: str) -> RunRecord:
    """The part of one run that the gathered report stores: the clips of its method and controls, and its provenance."""
    clips = [
        record
        for record in report["clips"]
        if record["row"] in (*CONTROLS, "stage1_only") or record["row"] == _row(name, record["split"])
    ]
    seconds = report["seconds"]
    total = sum(seconds.values()) if isinstance(seconds, Mapping) else float(seconds)
    return {"clips": clips, "seconds": total} | {key: report.get(key) for key in KEPT_KEYS}


def _earlier_runs(path: Path) -> Runs:
    runs = read_report(path).get("runs")
    if not isinstance(runs, Mapping):
        raise ReportError(f"{path} does not list its runs: give an ablation.json of reproduce_tables.py")
    return {name: {int(seed): dict(run) for seed, run in seeds.items()} for name, seeds in runs.items()}


def _clips_of(run: RunRecord) -> set[tuple[str, str]]:
    return {(c["clip"], c["split"]) for c in run["clips"] if c["row"] not in CONTROLS}


def _judge_of(run: RunRecord) -> tuple[str | None, int | None]:
    return run.get("perceptual_net"), run.get("perceptual_size")


def _shared_weights(run: RunRecord) -> dict[str, str]:
    return {name: digest for name, digest in run["weights"].items() if name not in OWN_WEIGHTS}


def _without_controls(run: RunRecord) -> RunRecord:
    return run | {"clips": [record for record in run["clips"] if record["row"] not in CONTROLS]}


def _row(experiment: str, split: str) -> str:
    """The row of a run's report that is the experiment's row on this split."""
    return "full" if split == "tuned" and experiment != "stage1_only" else "stage1_only"


def _mean_scores(reports: Sequence[Mapping[str, Any]], row: str, split: str, name: str) -> list[ClipScore]:
    """One score per clip: the mean figures over the reports; a figure that is missing in one report is None."""
    records_of: dict[str, list[Mapping[str, Any]]] = {}
    for report in reports:
        for record in report["clips"]:
            if record["row"] == row and record["split"] == split:
                records_of.setdefault(record["clip"], []).append(record)
    scores, no_curve = [], np.zeros(0)
    for clip, records in records_of.items():
        figures: dict[str, float | None] = {}
        for key in MEANS:
            values = [record["figures"].get(key) for record in records]
            figures[key] = None if None in values else mean_over(values)
        first = records[0]
        scores.append(
            ClipScore(name, split, clip, first["n_frames"], figures, no_curve, no_curve, first["speaker"])
        )
    return scores


def _by_seed(runs: Runs) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    """experiment -> seed -> split -> mean figures, which show how much they vary between seeds."""

    def means(run: RunRecord, row: str, split: str) -> dict[str, float | None]:
        clips = [c for c in run["clips"] if (c["row"], c["split"]) == (row, split)]
        return {key: mean_over([c["figures"].get(key) for c in clips]) for key in SEED_MEASURES if clips}

    return {
        name: {
            str(seed): {
                split: figures for split in SPLITS if (figures := means(run, _row(name, split), split))
            }
            for seed, run in seeds.items()
        }
        for name, seeds in runs.items()
    }
