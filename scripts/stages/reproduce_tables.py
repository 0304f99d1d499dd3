"""The paper's Table 1 and its ablation with the published numbers beside ours, as Markdown, CSV and LaTeX, from result
files of evaluate.py; and the same measures on the embedded corpus, with our numbers only. A data set without a result
file says `not reproduced: data or weights missing`. By default results/tcd_timit/report.json and
results/grid/report.json are looked for (experiment=paper_tcd_timit and experiment=paper_grid write them). The ablation on
the embedded corpus (results/ablation_*/report.json, else docs/results/ablation.json) becomes a separate table with
intervals and one report, ablation.json. If tables.ablation names such a report, its runs are combined with those under
results/.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.schema import Config
from metrics.report.published_numbers import ABLATION, DATASETS, MEASURES, TABLE_1, TEST_SPEAKERS
from metrics.report.report_files import format_figure
from metrics.report.report_schema import ReportError, read_report
from metrics.report.tables import Table
from scripts.core.provenance import ROOT
from scripts.core.runtime import Run, shown
from scripts.stages.ablation import ablation_runs, ablation_table, gather

NOT_REPRODUCED = "not reproduced: data or weights missing"
COMMITTED = ROOT / "docs" / "results"
# Rows of Table 1: label -> row of a report
OUR_ROWS = {"this code": "full", "this code, stage 1 only": "stage1_only", "static frame": "static"}
# Runs of the paper's ablation: label -> folder under results/
VARIANTS = {"without L_latent": "tcd_timit_no_latent", "without L_lpips": "tcd_timit_no_lpips"}
EMBEDDED_MEASURES = ("psnr", "ssim", "fid", "lmd", "lmd_mouth", "mouth_corr")

Report = Mapping[str, Any]
Row = Mapping[str, Any]


def reproduce_tables(config: Config, run: Run) -> Path:
    """The folder with table1, ablation, embedded and ablation_embedded as .md, .csv and .tex, and ablation.json."""
    folder = Path(config.output) if config.output else run.results.parent / "tables"
    reports = {name: find_report(name, getattr(config.tables, name), run) for name in DATASETS}
    variants = {label: find_report(name, None, run) for label, name in VARIANTS.items()}
    tables = {
        "table1": table_1(reports),
        "ablation": ablation(reports["tcd_timit"], variants),
        "embedded": embedded(embedded_reports(run)),
    }
    if (gathered := embedded_ablation(config, folder, run)) is not None:
        tables["ablation_embedded"] = ablation_table(gathered)
    for name, table in tables.items():
        table.write(folder / name)
        run.say(f"{name}:\n{table.markdown()}")
    run.say(f"tables: {shown(folder)}")
    return folder


# ------------------------------------------------------------------------------------------------- result files


def find_report(name: str, given: str | None, run: Run) -> Report | None:
    """The given report, or results/<name>/report.json if it exists. Raises ReportError for an invalid file."""
    path = Path(given) if given else run.results.parent / name / "report.json"
    return read_report(path) if given or path.is_file() else None


def embedded_reports(run: Run) -> dict[str, Report]:
    """Name -> report, of all result files whose data is the embedded corpus."""
    reports = {}
    for path in [*sorted(COMMITTED.glob("*.json")), *sorted(run.results.parent.glob("*/report.json"))]:
        try:
            report = read_report(path)
        except ReportError as error:
            run.say(f"left out: {error}")
            continue
        if report.get("data", {}).get("kind") == "embedded":
            reports[path.stem if path.stem != "report" else path.parent.name] = report
    return reports


def embedded_ablation(config: Config, folder: Path, run: Run) -> Report | None:
    """The runs of the ablation gathered in folder/ablation.json, or else the committed report, or None."""
    earlier = Path(config.tables.ablation) if config.tables.ablation else None
    if runs := ablation_runs(run.results.parent, earlier):
        return gather(runs, folder / "ablation.json", command=sys.argv)
    committed = COMMITTED / "ablation.json"
    return read_report(committed) if committed.is_file() else None


def our_row(report: Report | None, name: str = "full") -> Row | None:
    """The row `name` on the tuned split, or else on all, unseen or seen. In a report of two folders the method's row stands
    for `full`."""
    if report is None:
        return None
    if name == "full":
        name = report.get("method", name)
    rows = {row["split"]: row for row in reversed(report["rows"]) if row["name"] == name}
    return next((rows[split] for split in ("tuned", "all", "unseen", "seen") if split in rows), None)


# ------------------------------------------------------------------------------------------------------- tables


def table_1(reports: Mapping[str, Report | None]) -> Table:
    """The published rows, then ours and the static control."""
    columns = [f"{name} {measure.upper()}" for name in DATASETS.values() for measure in MEASURES]
    lines = []
    for method, numbers in TABLE_1.items():
        cells = [_published(m, v) for name in DATASETS for m, v in zip(MEASURES, numbers[name], strict=True)]
        lines.append([method, *cells, ""])
    for label, row_name in OUR_ROWS.items():
        rows = {name: our_row(report, row_name) for name, report in reports.items()}
        clips = ", ".join(f"{DATASETS[name]} {row['n_clips']}" for name, row in rows.items() if row)
        lines.append([label, *(_ours(m, rows[name]) for name in DATASETS for m in MEASURES), clips])

    notes = [f"{DATASETS[name]}: {NOT_REPRODUCED}" for name, report in reports.items() if report is None]
    notes += [split_note(name, report) for name, report in reports.items() if report]
    notes += [
        f"{DATASETS[name]}: this code's generator is the embedded one, of 256 px, and not FFHQ's StyleGAN2"
        for name, report in reports.items()
        if report and report.get("config", {}).get("generator", {}).get("weights") == "embedded"
    ]
    notes.append(
        "Published: Alghamdi et al. 2022, Table 1; its LMD and its split are not defined there. LMD here: mean "
        "distance of 68 points in px at 256."
    )
    return Table(["method", *columns, "N"], lines, notes)


def split_note(dataset: str, report: Report) -> str:
    """Whether the scored speakers are the published test speakers; reports of version 1 do not contain the speakers."""
    name, test = DATASETS[dataset], TEST_SPEAKERS[dataset]
    row = our_row(report) or {}
    place = (row.get("name"), row.get("split"))
    speakers = {clip["speaker"] for clip in report.get("clips", []) if (clip["row"], clip["split"]) == place}
    if not speakers:
        return f"{name}: the result file does not say which speakers were scored"
    if others := sorted(speakers - test):
        examples = ", ".join(others[:5])
        return f"{name}: {len(others)} of {len(speakers)} speakers are not of the test split ({examples})"
    return f"{name}: {len(speakers)} of the {len(test)} speakers of the test split"


def ablation(full: Report | None, variants: Mapping[str, Report | None]) -> Table:
    """The paper's ablation on TCD-TIMIT, published and ours side by side."""
    measures = ("psnr", "ssim", "lmd")
    rows = {label: our_row(report) for label, report in variants.items()}
    rows |= {"stage 1 only": our_row(full, "stage1_only"), "full": our_row(full)}
    lines = []
    for label, numbers in ABLATION.items():
        pairs = zip(measures, numbers, strict=True)
        lines.append([label, *(cell for m, v in pairs for cell in (_published(m, v), _ours(m, rows[label])))])
    missing = [label for label in ABLATION if rows[label] is None]
    notes = [f"{', '.join(missing)}: {NOT_REPRODUCED}"] if missing else []
    notes.append("TCD-TIMIT. Published: Alghamdi et al. 2022, ablation.")
    columns = [f"{measure.upper()} {source}" for measure in measures for source in ("published", "ours")]
    return Table(["variant", *columns], lines, notes)


def embedded(reports: Mapping[str, Report]) -> Table:
    """Every row of every result on the embedded corpus, for which there are no published numbers."""
    lines = [
        [name, row["split"], row["name"], *(_ours(m, row) for m in EMBEDDED_MEASURES), str(row["n_clips"])]
        for name, report in reports.items()
        for row in report["rows"]
    ]
    note = "Synthetic speakers, rendered by the generator itself: these figures overestimate the quality on real footage."
    notes = [note if lines else "no result on the embedded corpus yet: run evaluate.py"]
    columns = ["result", "split", "row", *(measure.upper() for measure in EMBEDDED_MEASURES), "clips"]
    return Table(columns, lines, notes, words=3)


def _published(measure: str, value: float) -> str:
    return f"{value:.2f}" if measure == "ssim" else format_figure(measure, value)


def _ours(measure: str, row: Row | None) -> str:
    return format_figure(measure, None if row is None else row.get(measure))
