"""One table as Markdown, CSV and LaTeX."""

import csv
import io

from metrics.report.tables import Table

TABLE = Table(
    ["row", "LMD", "clips"], [["stage1_only", "1.00", "3"], [r"50 % \ a_b", "–", "12"]], ["No FID", "Two."]
)


def test_markdown_keeps_the_digits_and_aligns_numbers_to_the_right():
    lines = TABLE.markdown().splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["row", "LMD", "clips"]
    assert lines[1].replace("-", "") == "|:|:|:|" and lines[1].startswith("|:-") and lines[1].endswith("-:|")
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["stage1_only", "1.00", "3"]
    assert lines[4:] == ["", "No FID.", "", "Two."]


def test_csv_leaves_missing_figures_empty():
    read = list(csv.reader(io.StringIO(TABLE.csv())))
    assert read == [["row", "LMD", "clips"], ["stage1_only", "1.00", "3"], [r"50 % \ a_b", "", "12"]]


def test_latex_is_escaped_and_has_the_notes_as_comments():
    text = TABLE.latex()
    assert text.startswith("% No FID.\n% Two.\n\\begin{tabular}{lrr}\n\\toprule\n")
    assert r"stage1\_only & 1.00 & 3 \\" in text and r"a\_b & -- & 12 \\" in text
    assert r"50 \% \textbackslash" in text


def test_a_table_without_lines_has_its_headings(tmp_path):
    Table(["result", "LMD"], [], ["nothing yet"]).write(tmp_path / "empty")
    for suffix in (".md", ".csv", ".tex"):
        assert "result" in (tmp_path / f"empty{suffix}").read_text()
    assert "nothing yet." in (tmp_path / "empty.md").read_text()
