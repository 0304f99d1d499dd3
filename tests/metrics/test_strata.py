"""Means by speaker and by clip length, and the table with THEval's names."""

import csv
import io

import pytest
from metric_scores import report, score, scores

from metrics.report.paired_differences import clip_records
from metrics.report.report_files import write_tables
from metrics.report.strata import EQUAL, length_stratum, strata
from metrics.report.theval_table import theval_csv


def test_means_by_speaker_and_by_length():
    records = clip_records([*scores()[::3], score("stage1_only", "s2/long", "s2", 40.0)])
    records[-1] = dict(records[-1]) | {"n_frames": 1000}
    found = {(r["by"], r["stratum"]): r for r in strata(records) if r["row"] == "stage1_only"}
    psnr = {key: r["figures"]["psnr"] for key, r in found.items()}
    assert psnr == pytest.approx(
        {
            ("speaker", "s2"): (15 + 16 + 17 + 40) / 4,
            ("speaker", "s4"): 26,
            ("speaker", EQUAL): (22 + 26) / 2,
            ("length", "3 to 10 s"): (15 + 16 + 17 + 25 + 26 + 27) / 6,
            ("length", "10 s or more"): 40,
            ("length", EQUAL): (21 + 40) / 2,
        }
    )
    assert found["speaker", "s2"]["n_clips"] == 4 and found["length", EQUAL]["n_clips"] == 7
    assert found["length", "10 s or more"]["n_frames"] == 1000
    assert found["speaker", EQUAL]["figures"]["identity"] is None
    assert [length_stratum(n) for n in (74, 75, 249, 250)] == [
        "under 3 s",
        "3 to 10 s",
        "3 to 10 s",
        "10 s or more",
    ]


def test_the_report_and_its_csv_list_the_strata(tmp_path):
    content = report(tmp_path / "report.json")
    assert {r["by"] for r in content["strata"]} == {"speaker", "length"}
    write_tables(tmp_path, content["rows"], strata=content["strata"])
    lines = list(csv.DictReader(io.StringIO((tmp_path / "report_strata.csv").read_text())))
    assert len(lines) == len(content["strata"]) == 3 * (3 + 2)
    assert lines[0]["stratum"] == "s2" and float(lines[0]["psnr"]) == 16 and lines[0]["identity"] == ""


def test_thevals_names():
    truth = {"name": "ground_truth", "split": "all", "mouth_sharpness": 1.1, "sync_confidence": 3.0}
    rows = [{"name": "ours", "split": "all", "mouth_sharpness": 0.5, "sync_confidence": 2.0}, truth]
    lines = list(csv.DictReader(io.StringIO(theval_csv(rows)["all"])))
    assert list(lines[0]) == [
        "Model",
        "Global aesthetic",
        "Mouth quality",
        "Face quality",
        "Lip dynamics",
        "Head motion dynamics",
        "Eyebrow dynamics",
        "Silent lip stability",
        "Lip sync",
    ]
    assert [line["Model"] for line in lines] == ["GT", "ours"]
    assert (lines[1]["Mouth quality"], lines[1]["Lip sync"], lines[1]["Global aesthetic"]) == (
        "0.5",
        "2.0",
        "",
    )
    assert theval_csv(rows[:1]) == {}
