"""The paper's Table 1 and its ablation with the published numbers beside ours, as Markdown, CSV and LaTeX, from result
files of evaluate.py; and the same measures on the embedded corpus, with our numbers only. A data set without a result
file says `not reproduced: data or weights missing`. By default results/tcd_timit/report.json and
results/grid/report.json are looked for (experiment=paper_tcd_timit and experiment=paper_grid write them). The ablation on
the embedded corpus (results/ablation_*/report.json, else docs/results/ablation.json) becomes a table of its own, with
intervals, and one report, ablation.json; given to tables.ablation later, it lends its runs to those made since.
"""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.schema import Config
from metrics.report.published_numbers import ABLATION, DATASETS, MEASURES, TABLE_1, TEST_SPEAKERS
from metrics.report.report_files import escaped
from metrics.report.report_files import shown as figure
from metrics.report.report_schema import ReportError, read_report
from scripts.core.provenance import ROOT
from scripts.core.runtime import Run, shown
from scripts.stages.ablation import ablation_runs, ablation_table, gather
from stylegan2.weights import atomic_path

NOT_REPRODUCED = "not reproduced: data or weights missing"
Line = list[str]


def reproduce_tables(config: Config, run: Run) -> Path:
    """The folder with table1, ablation, embedded and ablation_embedded as .md, .csv and .tex, and ablation.json."""
    folder = Path(config.output) if config.output else run.results.parent / "tables"
    reports = {name: found_report(name, getattr(config.tables, name), run) for name in DATASETS}
    tables = {
        "table1": table_1(reports),
        "ablation": ablation(reports["tcd_timit"], variants(config, run)),
        "embedded": embedded(embedded_reports(config, run)),
    }
    if (gathered := embedded_ablation(config, folder, run)) is not None:
        tables["ablation_embedded"] = ablation_table(gathered)
    for name, (header, lines, notes) in tables.items():
        write_table(folder / name, header, lines, notes)
        run.say(f"{name}:\n{as_markdown(header, lines, notes)}")
    run.say(f"tables: {shown(folder)}")
    return folder


# ------------------------------------------------------------------------------------------------- result files


def found_report(name: str, given: str | None, run: Run) -> dict[str, Any] | None:
    """The report that was given, or results/<name>/report.json, or None. Raises ReportError for a bad file."""
    path = Path(given) if given else run.results.parent / name / "report.json"
    if not given and not path.is_file():
        return None
    return read_report(path)


def variants(config: Config, run: Run) -> dict[str, dict[str, Any] | None]:
    """Reports of the ablation's runs: results/tcd_timit_<variant>/report.json."""
    names = {"without L_latent": "tcd_timit_no_latent", "without L_lpips": "tcd_timit_no_lpips"}
    return {label: found_report(name, None, run) for label, name in names.items()}


def embedded_reports(config: Config, run: Run) -> dict[str, dict[str, Any]]:
    """Name -> report, of all result files whose data is the embedded corpus."""
    found = {}
    for path in [
        *sorted((ROOT / "docs" / "results").glob("*.json")),
        *sorted(run.results.parent.glob("*/report.json")),
    ]:
        try:
            report = read_report(path)
        except ReportError as error:
            run.say(f"left out: {error}")
            continue
        if report.get("data", {}).get("kind") == "embedded":
            found[path.stem if path.stem != "report" else path.parent.name] = report
    return found


def embedded_ablation(config: Config, folder: Path, run: Run) -> dict[str, Any] | None:
    """The ablation's runs gathered in folder/ablation.json, or else the committed report, or None."""
    earlier = Path(config.tables.ablation) if config.tables.ablation else None
    if runs := ablation_runs(run.results.parent, earlier):
        return gather(runs, folder / "ablation.json", command=sys.argv)
    committed = ROOT / "docs" / "results" / "ablation.json"
    return read_report(committed) if committed.is_file() else None


def our_row(report: Mapping[str, Any] | None, name: str = "full") -> Mapping[str, Any] | None:
    """The method's row: of two folders its own, else `name` on the tuned split, else on the unseen one."""
    if report is None:
        return None
    wanted = report.get("method", name)
    rows = [row for row in report["rows"] if row["name"] == wanted]
    return next(
        (row for split in ("tuned", "all", "unseen", "seen") for row in rows if row["split"] == split), None
    )


def split_note(dataset: str, report: Mapping[str, Any] | None) -> str | None:
    """Whether the speakers that were scored are the published test speakers; version 1 files do not say."""
    if report is None:
        return None
    name, test = DATASETS[dataset], TEST_SPEAKERS[dataset]
    scored = our_row(report) or {}
    place = (scored.get("name"), scored.get("split"))
    speakers = {clip["speaker"] for clip in report.get("clips", []) if (clip["row"], clip["split"]) == place}
    if not speakers:
        return f"{name}: the result file does not say which speakers were scored"
    if strangers := sorted(speakers - test):
        some = ", ".join(strangers[:5])
        return f"{name}: {len(strangers)} of {len(speakers)} speakers are not of the test split ({some})"
    return f"{name}: {len(speakers)} of the {len(test)} speakers of the test split"


# ------------------------------------------------------------------------------------------------------- tables

Table = tuple[Line, list[Line], list[str]]


def table_1(reports: Mapping[str, Mapping[str, Any] | None]) -> Table:
    """Published rows, then ours and its controls."""
    header = [
        "method",
        *(f"{DATASETS[name]} {measure.upper()}" for name in DATASETS for measure in MEASURES),
        "N",
    ]
    lines = [
        [
            name,
            *(
                published(value, measure)
                for dataset in DATASETS
                for measure, value in zip(MEASURES, row[dataset], strict=True)
            ),
            "",
        ]
        for name, row in TABLE_1.items()
    ]
    for label, row_name in (
        ("this code", "full"),
        ("this code, stage 1 only", "stage1_only"),
        ("static frame", "static"),
    ):
        rows = {name: control_row(report, row_name) for name, report in reports.items()}
        lines.append(
            [label, *(cell(rows[name], measure) for name in DATASETS for measure in MEASURES), counted(rows)]
        )
    notes = [f"{DATASETS[name]}: {NOT_REPRODUCED}" for name, report in reports.items() if report is None]
    notes += [note for name, report in reports.items() if (note := split_note(name, report))]
    notes += [
        f"{DATASETS[name]}: this code's generator is the embedded one, of 256 px, and not FFHQ's StyleGAN2"
        for name, report in reports.items()
        if report and report.get("config", {}).get("generator", {}).get("weights") == "embedded"
    ]
    notes.append(
        "Published: Alghamdi et al. 2022, Table 1; its LMD and its split are not defined there. LMD here: mean "
        "distance of 68 points in px at 256."
    )
    return header, lines, notes


def control_row(report: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    if report is not None and name != "full" and "method" in report:
        return next((row for row in report["rows"] if row["name"] == name), None)
    return our_row(report, name)


def ablation(full: Mapping[str, Any] | None, others: Mapping[str, Mapping[str, Any] | None]) -> Table:
    """Published and ours side by side."""
    measures = ("psnr", "ssim", "lmd")
    header = [
        "variant",
        *(f"{measure.upper()} {who}" for measure in measures for who in ("published", "ours")),
    ]
    rows = {label: our_row(report) for label, report in others.items()}
    rows |= {
        "stage 1 only": our_row(full, "stage1_only") if full and "method" not in full else None,
        "full": our_row(full),
    }
    lines = []
    for label, numbers in ABLATION.items():
        cells = [label]
        for measure, value in zip(measures, numbers, strict=True):
            cells += [published(value, measure), cell(rows[label], measure)]
        lines.append(cells)
    missing = [label for label in ABLATION if rows[label] is None]
    notes = [f"{', '.join(missing)}: {NOT_REPRODUCED}"] if missing else []
    return header, lines, [*notes, "TCD-TIMIT. Published: Alghamdi et al. 2022, ablation."]


def embedded(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """Every row of every result on the embedded corpus; there is nothing published to stand beside it."""
    measures = ("psnr", "ssim", "fid", "lmd", "lmd_mouth", "mouth_corr")
    header = ["result", "split", "row", *(measure.upper() for measure in measures), "clips"]
    lines = [
        [name, row["split"], row["name"], *(cell(row, measure) for measure in measures), str(row["n_clips"])]
        for name, report in reports.items()
        for row in report["rows"]
    ]
    notes = ["Synthetic speakers whose frames the generator itself made: these numbers flatter the method."]
    return header, lines, notes if lines else ["no result on the embedded corpus yet: run evaluate.py"]


def published(value: float | None, measure: str) -> str:
    return figure(measure, value) if measure != "ssim" or value is None else f"{value:.2f}"


def cell(row: Mapping[str, Any] | None, measure: str) -> str:
    return figure(measure, None if row is None else row.get(measure))


def counted(rows: Mapping[str, Mapping[str, Any] | None]) -> str:
    return ", ".join(f"{DATASETS[name]} {row['n_clips']}" for name, row in rows.items() if row is not None)


# ------------------------------------------------------------------------------------------------------ writing


def write_table(stem: Path, header: Line, lines: Sequence[Line], notes: Sequence[str]) -> None:
    texts = {
        ".md": as_markdown(header, lines, notes),
        ".csv": as_csv(header, lines),
        ".tex": as_latex(header, lines, notes),
    }
    for suffix, text in texts.items():
        with atomic_path(stem.with_name(stem.name + suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")


def as_markdown(header: Line, lines: Sequence[Line], notes: Sequence[str]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return table + "\n" + "".join(f"\n{note}" + ("" if note.endswith(".") else ".") + "\n" for note in notes)


def as_csv(header: Line, lines: Sequence[Line]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if value == "–" else value for value in line] for line in lines])
    return text.getvalue()


def as_latex(header: Line, lines: Sequence[Line], notes: Sequence[str]) -> str:
    head = [
        r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
        r"\toprule",
        _latex_row(header),
        r"\midrule",
    ]
    return (
        "\n".join(
            [
                *(f"% {note}" for note in notes),
                *head,
                *map(_latex_row, lines),
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
        + "\n"
    )


def _latex_row(cells: Line) -> str:
    return " & ".join(escaped(text).replace("–", "--") for text in cells) + r" \\"
