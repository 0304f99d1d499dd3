"""The schema of report.json."""

import copy
import json
from pathlib import Path

import pytest
from metric_scores import report

from metrics.report.paired_differences import compare_reports
from metrics.report.report_files import report_table
from metrics.report.report_schema import ReportError, check_report, read_report

ROOT = Path(__file__).parents[2]


def test_a_report_is_checked_when_written_and_when_read(tmp_path):
    written = report(tmp_path / "report.json")
    assert written["schema_version"] == 5 and read_report(tmp_path / "report.json") == written
    for break_it, words in (
        (lambda r: r.pop("clips"), "lacks clips"),
        (lambda r: r["rows"][0].update(psnr="high"), r"rows\[0\].psnr"),
        (lambda r: r["rows"][0].update(n_clips=5), "mean over 5 clips, 6 are listed"),
        (lambda r: r["rows"][0]["interval"].update(psnr=[3, 1]), "interval of psnr"),
        (lambda r: r["rows"][0]["interval"].update(psnr=3), "interval of psnr"),
        (lambda r: r["rows"][0]["interval"].update(psnr=[1, "x"]), "interval of psnr"),
        (lambda r: r["rows"][0].update(psnr=10**400), "expected a finite number"),
        (lambda r: r["rows"][0].update(lip_gain_denominator="0.1"), r"rows\[0\].lip_gain_denominator"),
        (lambda r: r["strata"][0].pop("by"), r"strata\[0\] lacks by"),
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


def test_a_report_of_version_3_has_no_sface_and_is_read(tmp_path):
    old = report(tmp_path / "report.json")
    old["schema_version"] = 3
    for record in (*old["rows"], *(clip["figures"] for clip in old["clips"])):
        del record["sface"]
    (tmp_path / "report.json").write_text(json.dumps(old))
    read = read_report(tmp_path / "report.json")
    assert check_report(read) == 3 and "sface" not in report_table(read["rows"]).columns
    newer = [r | {"figures": r["figures"] | {"sface": 0.9}} for r in read["clips"]]
    differences = compare_reports(newer, "full", "tuned", read | {"method": "full"}, "old")["differences"]
    assert differences["psnr"]["mean"] == 0 and "sface" not in differences


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json")), ids=lambda p: p.stem)
def test_older_results_are_still_read(path):
    assert check_report(json.loads(path.read_text())) in ((5,) if path.stem == "grid_s1" else (1, 2, 3))
