"""report.json, its tables, and the plots."""

import csv
import io
import json
import re

import numpy as np
import pytest
from matplotlib import rc_context
from PIL import Image
from rich.console import Console

from metrics.report.plots import (
    plot_apertures,
    plot_error_strip,
    plot_violins,
    save_image,
    side_by_side,
    strip,
)
from metrics.report.report_files import (
    COLUMNS,
    format_figure,
    print_table,
    report_table,
    to_csv,
    versions,
    write_report,
    write_tables,
)


def row(name: str, **figures) -> dict:
    empty = dict.fromkeys(COLUMNS) | {
        "fid_reason": "no weights",
        "fvd_reason": "no I3D",
        "n_psnr": 3,
        "n_frames": 75,
        "n_clips": 3,
    }
    return {"name": name, "split": "seen"} | empty | figures


ROWS = [
    row("ground_truth", psnr=float("inf"), ssim=1.0, mouth_corr=np.float32(0.97)),
    row("static", psnr=28.125, mouth_corr=0.0),
]


def test_report_is_strict_json(tmp_path):
    path = tmp_path / "new" / "report.json"
    returned = write_report(
        path, ROWS, {"generator": "ab" * 32}, 12.3456, perceptual_size=128, config={"a": tmp_path}
    )
    report = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in the file"))
    assert report == returned
    assert report["rows"][0]["psnr"] is None and report["rows"][0]["mouth_corr"] == pytest.approx(0.97)
    assert report["rows"][1]["fid"] is None and report["rows"][1]["fid_reason"] == "no weights"
    assert report["weights"] == {"generator": "ab" * 32} and report["seconds"] == 12.346
    assert report["versions"]["torch"] and report["perceptual_size"] == 128
    assert report["config"]["a"] == str(tmp_path)
    assert list(path.parent.iterdir()) == [path]


def test_incomplete_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"row static lacks .*ssim"):
        write_report(tmp_path / "report.json", [{"name": "static"}], {}, 0.0)
    assert not (tmp_path / "report.json").exists()


def test_absent_package_is_null():
    assert versions(["no-such-package-here"])["no-such-package-here"] is None


def test_the_table_drops_empty_columns_and_gives_the_reason():
    table = report_table(ROWS)
    assert table.columns == ["row", "split", "psnr", "ssim", "mouth_corr", "frames", "clips"]
    assert table.lines[0] == ["ground_truth", "seen", "–", "1.000", "0.970", "75", "3"]
    assert table.lines[1] == ["static", "seen", "28.12", "–", "0.000", "75", "3"]
    assert table.notes == ["No FID: no weights.", "No FVD: no I3D."]


def test_figures_have_the_digits_of_their_column():
    assert format_figure("kid", 0.1234567) == "0.12346" and format_figure("psnr", None) == "–"
    assert format_figure("lmd", 1.0, (0.5, 1.456)) == "1.00 [0.50, 1.46]"


def test_csv_keeps_every_column_at_full_precision(tmp_path):
    read = list(csv.DictReader(io.StringIO(to_csv(ROWS))))
    assert read[1]["psnr"] == "28.125" and read[1]["ssim"] == "" and set(COLUMNS) < set(read[0])
    assert read[1]["n_frames"] == "75"
    write_tables(tmp_path, ROWS)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("report.md", "report.csv", "report.tex", "report_theval_seen.csv")
    }
    assert all(path.stat().st_size for path in tmp_path.iterdir())
    assert (tmp_path / "report.csv").read_text() == to_csv(ROWS)


def test_console_table():
    text = io.StringIO()
    numbers = dict.fromkeys(COLUMNS, 0.5) | {"lip_gain": -1.25, "fid": 123.45}
    print_table(
        [*ROWS, row("mean_trajectory", **numbers), row("full", psnr=30.0) | {"split": "tuned"}],
        Console(file=text, width=80),
    )
    assert "…" not in text.getvalue()
    assert "seen: 3 clips" in text.getvalue() and "tuned: 3 clips" in text.getvalue()
    assert "28.12" in text.getvalue()


def frames(value: int, n: int) -> list[np.ndarray]:
    return [np.full((64, 64, 3), value + t, np.uint8) for t in range(n)]


def test_strip_puts_truth_above():
    image = strip(frames(0, 9), frames(100, 9), columns=3, size=32)
    assert image.shape == (64, 96, 3)
    assert image[0, ::32, 0].tolist() == [0, 4, 8] and image[40, ::32, 0].tolist() == [100, 104, 108]
    with pytest.raises(ValueError, match="as many"):
        strip(frames(0, 3), frames(0, 2))


def test_side_by_side_streams():
    joined = side_by_side(iter(frames(0, 3)), iter(frames(100, 2)))
    first = next(joined)
    assert first.shape == (64, 128, 3) and first[0, 0, 0] == 0 and first[0, -1, 0] == 100
    assert len(list(joined)) == 1


def test_pictures_are_written(tmp_path):
    curve = np.linspace(0, 0.3, 50)
    plot_apertures(tmp_path / "aperture.png", curve, {"full": curve[::-1], "static": 0 * curve}, "clip")
    save_image(tmp_path / "strip.jpg", strip(frames(0, 4), frames(50, 4)))
    for name in ("aperture.png", "strip.jpg"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 0


@pytest.mark.parametrize("name", ["a$b$c", "5$", r"a\b$c_d$", r"$\frac{$", r"a\$b$"])
def test_names_with_a_dollar_are_shown_as_they_are(name, tmp_path):
    """Read as mathematics, some of these names would be refused and others shown without their dollars."""
    curve = np.linspace(0, 0.3, 50)
    with rc_context({"svg.fonttype": "none"}):  # text is written as text
        plot_apertures(tmp_path / "aperture.svg", curve, {name: curve[::-1]}, name)
        plot_error_strip(tmp_path / "error.svg", curve, [], [], name)
        plot_violins(tmp_path / "violins.svg", {name: {name: [1.0, 2.0]}})
    for file, places in (("aperture", 2), ("error", 1), ("violins", 2)):
        texts = re.findall(r"<text [^>]*>([^<]*)</text>", (tmp_path / f"{file}.svg").read_text())
        assert len([text for text in texts if text.startswith(name)]) == places
