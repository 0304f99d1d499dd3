"""The contract of report.json, paired differences, and the paper's tables beside ours."""

import copy
import csv
import json
from pathlib import Path

import numpy as np
import pytest

from metrics.measures.intervals import paired_difference, speaker_interval
from metrics.report.paired_differences import clip_records, compare_rows
from metrics.report.published_numbers import ABLATION, TABLE_1, TEST_SPEAKERS
from metrics.report.report_files import escaped, latex, write_report
from metrics.report.report_schema import ReportError, check_report, read_report
from metrics.scoring.clip_score import MEANS, ClipScore
from metrics.scoring.score_clips import summarise
from scripts.core import runtime
from scripts.stages.reproduce_tables import NOT_REPRODUCED, reproduce_tables

ROOT = Path(__file__).parents[2]


def score(row: str, clip: str, speaker: str, value: float, split: str = "tuned") -> ClipScore:
    figures = dict.fromkeys(MEANS) | {"psnr": value, "ssim": 0.5, "lmd": value / 10, "mouth_corr": 0.5}
    return ClipScore(row, split, clip, 75, figures, np.zeros(75), np.zeros(75), speaker)


def scores(bonus: float = 2.0, speakers=("s2", "s4")) -> list[ClipScore]:
    made = []
    for who, base in zip(speakers, (15.0, 25.0), strict=True):
        for number in range(3):
            clip = f"{who}/{number}"
            made.append(score("stage1_only", clip, who, base + number))
            made.append(score("full", clip, who, base + number + bonus))
            made.append(score("static", clip, who, base))
    return made


def report(path: Path, **more) -> dict:
    found = scores(**more)
    return write_report(path, summarise(found), {"judge": "ab" * 32}, 1.0, found, bases=["full"])


# ------------------------------------------------------------------------------------------------------ statistics


def test_paired_differences_are_tighter_than_differences_of_means():
    records = clip_records(scores())
    gaps = compare_rows(records, ["full"])
    assert [g["against"] for g in gaps] == ["stage1_only", "static"]
    gap = gaps[0]["differences"]["psnr"]
    assert gap["mean"] == pytest.approx(2) and gap["interval"] == pytest.approx((2, 2))
    assert gap["n_clips"] == 6 and gap["n_speakers"] == 2
    low, high = next(r for r in summarise(scores()) if r["name"] == "full")["interval"]["psnr"]
    assert high - low > 3  # clips differ far more than the methods do


def test_only_clips_that_both_have_are_compared():
    ours, theirs = {"a": 1.0, "b": 9.0, "c": None}, {"a": 0.5, "c": 2.0, "d": 7.0}
    gap = paired_difference(ours, theirs, {})
    assert gap and gap["mean"] == 0.5 and gap["n_clips"] == 1 and gap["interval"] is None
    assert paired_difference({"a": 1.0}, {"b": 1.0}, {}) is None


def test_speakers_are_drawn_whole():
    """Clips of a speaker are alike here, so drawing clips as if they were independent is far too sure."""
    rng = np.random.default_rng(0)
    who = np.repeat([f"s{i}" for i in range(8)], 25)
    values = np.repeat(rng.normal(0, 1, 8), 25) + rng.normal(0, 0.1, 200)
    low, high = speaker_interval(values.tolist(), who.tolist()) or (0, 0)
    means = [values[who == name].mean() for name in sorted(set(who))]
    assert high - low == pytest.approx(2 * 1.96 * np.std(means) / np.sqrt(8), rel=0.15)
    assert speaker_interval([1.0, 2.0], ["a", "a"]) is None


# -------------------------------------------------------------------------------------------------------- contract


def test_a_report_is_checked_when_written_and_when_read(tmp_path):
    written = report(tmp_path / "report.json")
    assert written["schema_version"] == 2 and read_report(tmp_path / "report.json") == written
    for break_it, words in (
        (lambda r: r.pop("clips"), "lacks clips"),
        (lambda r: r["rows"][0].update(psnr="high"), r"rows\[0\].psnr"),
        (lambda r: r["rows"][0].update(n_clips=5), "mean over 5 clips, 6 are listed"),
        (lambda r: r["rows"][0]["interval"].update(psnr=[3, 1]), "interval of psnr"),
        (lambda r: r.update(schema_version=9), "schema version 9"),
        (lambda r: r["clips"][0]["figures"].update(ssim=float("nan")), "finite"),
    ):
        broken = copy.deepcopy(written)
        break_it(broken)
        with pytest.raises(ReportError, match=words):
            check_report(broken)
    (tmp_path / "cut.json").write_text((tmp_path / "report.json").read_text()[:100])
    with pytest.raises(ReportError, match="no JSON"):
        read_report(tmp_path / "cut.json")


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json")), ids=lambda p: p.stem)
def test_older_results_are_still_read(path):
    assert check_report(json.loads(path.read_text())) in (1, 2)


def test_latex():
    text = latex(summarise(scores()), ["psnr", "lmd", "fid"])
    assert r"stage1\_only & tuned & 21.00 & 2.10 & 6 & 450 \\" in text and "fid" not in text
    assert escaped(r"50 % \ a_b") == r"50 \% \textbackslash{} a\_b"


# ---------------------------------------------------------------------------------------------------------- tables


def test_the_paper_s_numbers_are_those_of_the_paper():
    assert len(TABLE_1) == 5 and len(ABLATION) == 4
    assert TABLE_1["the paper"] == {"tcd_timit": (20.55, 0.65, 8.11, 2.18), "grid": (20.33, 0.65, 5.30, 2.18)}
    assert ABLATION["full"] == (20.55, 0.65, 2.18)
    assert len(TEST_SPEAKERS["grid"]) == 10 and len(TEST_SPEAKERS["tcd_timit"]) == 17


def tables(folder: Path, *more: str) -> int:
    arguments = [f"output={folder / 'tables'}", f"results_dir={folder / 'results'}", *more]
    return runtime.attempt(reproduce_tables, runtime.compose(arguments))


def test_without_data_the_tables_say_so(tmp_path):
    assert tables(tmp_path) == 0
    text = (tmp_path / "tables" / "table1.md").read_text()
    assert f"TCD-TIMIT: {NOT_REPRODUCED}" in text and f"GRID: {NOT_REPRODUCED}" in text
    assert "| the paper | 20.55 | 0.65 | 8.11 | 2.18 | 20.33 | 0.65 | 5.30 | 2.18 |" in text
    assert "| this code | – |" in text
    assert NOT_REPRODUCED in (tmp_path / "tables" / "ablation.md").read_text()
    embedded = list(csv.DictReader((tmp_path / "tables" / "embedded.csv").open()))
    assert {"embedded_seed606", "demo_seed0"} <= {line["result"] for line in embedded}
    full = next(line for line in embedded if line["result"] == "embedded_seed606" and line["row"] == "full")
    assert full["split"] == "tuned" and float(full["MOUTH_CORR"]) == pytest.approx(0.873, abs=0.001)


def test_our_results_stand_beside_the_published_ones(tmp_path):
    report(tmp_path / "results" / "grid" / "report.json")
    report(tmp_path / "tcd [1].json", speakers=("s2", "28M"))
    assert tables(tmp_path, f"tables.tcd_timit={tmp_path / 'tcd [1].json'}") == 0
    text = (tmp_path / "tables" / "table1.md").read_text()
    assert "| this code | 23.00 | 0.500 | – | 2.30 | 23.00 | 0.500 | – | 2.30 | TCD-TIMIT 6, GRID 6 |" in text
    assert NOT_REPRODUCED not in text and "embedded" not in text
    assert "GRID: 2 of the 10 speakers of the test split" in text
    assert "TCD-TIMIT: 1 of 2 speakers are not of the test split (s2)" in text
    ablation = (tmp_path / "tables" / "ablation.md").read_text()
    assert "| full | 20.55 | 23.00 | 0.65 | 0.500 | 2.18 | 2.30 |" in ablation
    assert "| stage 1 only | 17.55 | 21.00 |" in ablation
    assert f"without L_latent, without L_lpips: {NOT_REPRODUCED}" in ablation
    assert r"\toprule" in (tmp_path / "tables" / "table1.tex").read_text()


def test_the_embedded_generator_is_not_taken_for_the_paper_s(tmp_path):
    path = tmp_path / "results" / "grid" / "report.json"
    content = report(path) | {"config": {"generator": {"weights": "embedded"}}}
    path.write_text(json.dumps(content))
    assert tables(tmp_path) == 0
    assert (
        "GRID: this code's generator is the embedded one" in (tmp_path / "tables" / "table1.md").read_text()
    )


def test_a_damaged_result_file_is_an_error(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert tables(tmp_path, f"tables.grid={tmp_path / 'x.json'}") == 1
    assert "x.json lacks rows" in capsys.readouterr().err
    assert not (tmp_path / "tables").exists()
