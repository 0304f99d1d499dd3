"""How fast this machine is: synthesis (config F and the embedded generator), encoders, one step of tuning and of stage 1,
and the real-time factor of photo + speech -> video. Prints tables and writes results/<name>/benchmark.json, or output=.
what= restricts it to one part. Rivals run in turn in one process, and medians are compared; ratios are to the
formulation in tests/reference_synthesis.py, in float32, with the same allocator. An idle machine is needed.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from configs.schema import Config
from scripts.core.provenance import provenance, write_json
from scripts.core.runtime import Run, RunError, shown, threads
from scripts.stages.benchmark_timing import describe, peak, refusal, thread_counts
from scripts.stages.step_speed import encoder_rows, end_to_end, stage1_rows, tuning_rows
from scripts.stages.synthesis_speed import reference, synthesis_rows

Row = dict[str, Any]
HEADINGS = {"resolution": "px", "frames_per_s": "frames\na s", "images_per_s": "images\na s"}
ALLOCATORS = {
    "default": "glibc's malloc as it comes, in a process of its own",
    "tuned": "as every script here sets it (scripts.core.runtime.keep_freed_memory): freed blocks are kept, one arena",
}


def benchmark(config: Config, run: Run) -> Path:
    """The JSON file: machine, versions, peak, and one list of rows for each part."""
    output = Path(config.output) if config.output else run.results / "benchmark.json"
    if output.suffix.lower() != ".json":
        raise RunError(f"output={output} must end in .json.")
    parts: dict[str, Callable[[Config, Run], Any]] = {
        "synthesis": _synthesis,
        "encoder": encoder_rows,
        "tuning_step": _tuning,
        "stage1_step": stage1_rows,
        "end_to_end": end_to_end,
    }
    chosen = list(parts) if config.what == "all" else [config.what]
    if {"synthesis", "tuning_step"} & set(chosen):
        reference()  # if it is absent, that shows before anything is measured
    content: dict[str, Any] = {"machine": describe(run.device), "clock": config.benchmark.clock}
    content |= {"allocators": ALLOCATORS, "peak": _peaks(config, run)}
    for name in chosen:
        run.say(f"measuring {name}")
        content[name] = parts[name](config, run)
        show(name, content[name] if isinstance(content[name], list) else [content[name]])
    write_json(output, content | provenance())
    run.say(f"benchmark: {shown(output)}")
    return output


def _synthesis(config: Config, run: Run) -> list[Row]:
    return _by_allocator(synthesis_rows, config, (config.benchmark, str(run.device)))


def _tuning(config: Config, run: Run) -> list[Row]:
    task = (config.benchmark, config.tuning.perceptual_size, str(run.device))
    return _by_allocator(tuning_rows, config, task)


def _by_allocator(measure: Callable[..., list[Row]], config: Config, task: tuple[Any, ...]) -> list[Row]:
    """This process has the tuned allocator (scripts.core.runtime.start); a new one has glibc's default."""
    rows: list[Row] = []
    for allocator in config.benchmark.allocators:
        if allocator == "tuned":
            rows += measure(*task, allocator)
        else:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                rows += process.submit(measure, *task, allocator).result()
    return rows


def _peaks(config: Config, run: Run) -> list[Row]:
    """Measured rates of a large matrix product, GFLOP a second."""
    rows = []
    for count in thread_counts(config.benchmark):
        for precision in config.benchmark.precisions:
            row: Row = {"threads": count, "precision": precision, "gflops": None}
            reason = refusal(precision, run.device)
            with threads(count):
                rows.append(
                    row | {"reason": reason}
                    if reason
                    else row | {"gflops": peak(precision, config.benchmark, run.device) / 1e9}
                )
    show("peak", rows)
    return rows


def show(title: str, rows: Sequence[Row]) -> None:
    """A table of the rows' figures, without columns that are empty; reasons are in the file only."""
    shown_columns = [
        key
        for key in rows[0]
        if key not in ("reasons", "reason") and any(row[key] is not None for row in rows)
    ]
    table = Table(title=title, box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    for column in shown_columns:
        table.add_column(HEADINGS.get(column, column.replace("_", "\n")), no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in shown_columns))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return "\n".join(f"{name} {_cell(entry)}" for name, entry in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)
