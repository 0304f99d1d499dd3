"""The paper's tables with our numbers beside the published ones."""

import csv
import json
import re
from pathlib import Path

import pytest
from metric_scores import report

from metrics.report.published_numbers import ABLATION, TABLE_1, TEST_SPEAKERS
from scripts.core import runtime
from scripts.stages.reproduce_tables import NOT_REPRODUCED, reproduce_tables


def squeezed(path: Path) -> str:
    """The text of a Markdown table without the padding of its cells."""
    return re.sub(r" +", " ", path.read_text())


def test_the_paper_s_numbers_are_those_of_the_paper():
    assert len(TABLE_1) == 5 and len(ABLATION) == 4
    assert TABLE_1["the paper"] == {"tcd_timit": (20.55, 0.65, 8.11, 2.18), "grid": (20.33, 0.65, 5.30, 2.18)}
    assert ABLATION["full"] == (20.55, 0.65, 2.18)
    assert len(TEST_SPEAKERS["grid"]) == 10 and len(TEST_SPEAKERS["tcd_timit"]) == 17


def tables(folder: Path, *more: str) -> int:
    arguments = [f"output={folder / 'tables'}", f"results_dir={folder / 'results'}", *more]
    return runtime.attempt(reproduce_tables, runtime.compose(arguments))


def test_without_data_the_tables_state_that_it_is_missing(tmp_path):
    assert tables(tmp_path) == 0
    text = squeezed(tmp_path / "tables" / "table1.md")
    assert f"TCD-TIMIT: {NOT_REPRODUCED}" in text and f"GRID: {NOT_REPRODUCED}" in text
    assert "| the paper | 20.55 | 0.65 | 8.11 | 2.18 | 20.33 | 0.65 | 5.30 | 2.18 |" in text
    assert "| this code | – |" in text
    assert NOT_REPRODUCED in squeezed(tmp_path / "tables" / "ablation.md")
    embedded = list(csv.DictReader((tmp_path / "tables" / "embedded.csv").open()))
    assert {"embedded_seed606", "demo_seed0"} <= {line["result"] for line in embedded}
    full = next(line for line in embedded if line["result"] == "embedded_seed606" and line["row"] == "full")
    assert full["split"] == "tuned" and float(full["MOUTH_CORR"]) == pytest.approx(0.873, abs=0.001)


def test_our_results_are_listed_beside_the_published_ones(tmp_path):
    report(tmp_path / "results" / "grid" / "report.json")
    report(tmp_path / "tcd [1].json", speakers=("s2", "28M"))
    assert tables(tmp_path, f"tables.tcd_timit={tmp_path / 'tcd [1].json'}") == 0
    text = squeezed(tmp_path / "tables" / "table1.md")
    assert "| this code | 23.00 | 0.500 | – | 2.30 | 23.00 | 0.500 | – | 2.30 | TCD-TIMIT 6, GRID 6 |" in text
    assert NOT_REPRODUCED not in text and "embedded" not in text
    assert "GRID: 2 of the 10 speakers of the test split" in text
    assert "TCD-TIMIT: 1 of 2 speakers are not of the test split (s2)" in text
    ablation = squeezed(tmp_path / "tables" / "ablation.md")
    assert "| full | 20.55 | 23.00 | 0.65 | 0.500 | 2.18 | 2.30 |" in ablation
    assert "| stage 1 only | 17.55 | 21.00 |" in ablation
    assert f"without L_latent, without L_lpips: {NOT_REPRODUCED}" in ablation
    assert r"\toprule" in (tmp_path / "tables" / "table1.tex").read_text()


def test_results_of_the_embedded_generator_are_marked(tmp_path):
    path = tmp_path / "results" / "grid" / "report.json"
    content = report(path) | {"config": {"generator": {"weights": "embedded"}}}
    path.write_text(json.dumps(content))
    assert tables(tmp_path) == 0
    assert "GRID: this code's generator is the embedded one" in squeezed(tmp_path / "tables" / "table1.md")


def test_a_damaged_result_file_is_an_error(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert tables(tmp_path, f"tables.grid={tmp_path / 'x.json'}") == 1
    assert "x.json lacks rows" in capsys.readouterr().err
    assert not (tmp_path / "tables").exists()
