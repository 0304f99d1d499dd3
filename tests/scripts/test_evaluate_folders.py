"""evaluate.py on two folders of videos: scores, the records of the files, the page, and that no stage is needed."""

import ast
import json
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import pytest

from audio.waveform import Waveform
from encoders.footage.faces import Face
from encoders.footage.video_writer import write_video
from metrics.report import html_page, report_files
from metrics.report.report_schema import SCHEMA_VERSION, check_report
from metrics.scoring import row_accumulator, score_unpaired, score_videos
from metrics.scoring.row_accumulator import Judges
from metrics.scoring.video_files import Prediction
from scripts.core import runtime
from scripts.stages import evaluate_folders
from scripts.stages.evaluate_folders import matched, method_name
from scripts.stages.standalone import evaluate_alone

ROOT = Path(__file__).parents[2]
N = 24
LEVELS = (100 + 70 * np.sin(np.arange(N) * 1.3) * np.cos(np.arange(N) * 0.4)).round().astype(int)
NO_FACE = 240


class Reader:
    """Finds a face whose lip aperture is proportional to the brightness; none in a black or a nearly white frame."""

    name = "reader"

    def __call__(self, image: np.ndarray, near: np.ndarray | None = None) -> list[Face]:
        level = float(image.mean())
        if not 5 < level < 230:
            return []
        points = np.full((68, 2), 128, np.float32)
        points[36:42, 0], points[42:48, 0], points[36:48, 1] = 88, 168, 110
        points[62, 1], points[66, 1] = 190 - level / 8, 190 + level / 8
        points[48, 0], points[54, 0] = 110 - level / 16, 146 + level / 16
        scale = np.float32(image.shape[0] / 256)
        return [Face(np.array([60, 80, 196, 216], np.float32) * scale, points * scale)]


def video(path: Path, levels: Any = LEVELS, fps: int = 25, size=(64, 64), sound: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = Waveform(np.zeros(640 * 25 * len(levels) // fps, np.float32)) if sound else None
    frames = [np.full((*size, 3), level, np.uint8) for level in levels]
    write_video(path, frames, waveform, fps=fps, preset="ultrafast", synthetic=False)
    return path


def greyscale(path: Path) -> None:
    """Writes a video of one channel."""
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "gray"
        for level in LEVELS:
            picture = av.VideoFrame.from_ndarray(np.full((64, 64), level, np.uint8), format="gray")
            target.mux(stream.encode(picture))
        target.mux(stream.encode())


def rotated(path: Path) -> None:
    """Writes a video of 48 x 64 px whose header states a quarter turn, to 64 x 48."""
    plain = video(path.with_name("plain.mp4"), size=(48, 64), sound=False)
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    plain.unlink()
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix starts 40 bytes after version and flags
    turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turn)
    path.write_bytes(data)


@pytest.fixture(autouse=True)
def brightness_judges(monkeypatch):
    monkeypatch.setattr(
        evaluate_folders, "build_judges", lambda config, device, two_folders: Judges(Reader())
    )
    for module in (evaluate_folders, html_page):  # drawing the pictures of a clip takes a second
        monkeypatch.setattr(module, "MOST_CLIPS", 1)
    monkeypatch.setattr(row_accumulator, "ssim", lambda a, b: float((a == b).mean()))
    monkeypatch.setattr(
        score_videos, "crop", lambda frame, quad: np.full((256, 256, 3), frame[0, 0, 0], np.uint8)
    )


def run(predictions: Path, references: Path, output: Path, *more: str) -> int:
    arguments = [f"predictions={predictions}", f"references={references}", f"output={output}", "workers=1"]
    return runtime.attempt(
        evaluate_alone, runtime.compose([*arguments, f"results_dir={output / 'r'}", *more])
    )


def report_of(output: Path) -> dict:
    return json.loads((output / "report.json").read_text())


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path, Path]:
    """Predictions three frames late, their references, and an output folder whose name needs quoting."""
    for name in ("s1/a", "s2/b, [x]=1"):
        video(tmp_path / "truth" / f"{name}.mp4")
        video(tmp_path / "late 3" / f"{name}.mp4", LEVELS[np.maximum(np.arange(N) - 3, 0)])
    return tmp_path / "late 3", tmp_path / "truth", tmp_path / "out = [1]"


def test_two_folders_give_a_report_tables_and_a_page(two, capsys):
    assert run(*two) == 0
    output = two[2]
    report = report_of(output)
    assert (
        check_report(report) == SCHEMA_VERSION and report["method"] == "late 3" and report["crop"] == "face"
    )
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["late 3", "ground_truth", "static", "shift_5"]
    assert rows["late 3"]["mouth_lag"] == 3 and rows["ground_truth"]["mouth_corr"] == pytest.approx(1)
    assert rows["late 3"]["n_clips"] == 2 and rows["late 3"]["n_speakers"] == 2
    assert rows["late 3"]["fid"] is None and rows["late 3"]["fid_reason"]
    assert rows["late 3"]["fvd"] is None and rows["late 3"]["fvd_reason"]
    assert {c["speaker"] for c in report["clips"]} == {"s1", "s2"}
    gap = next(p for p in report["paired"] if p["against"] == "static")["differences"]["mouth_corr"]
    assert gap["n_clips"] == 2 and gap["mean"] == pytest.approx(rows["late 3"]["mouth_corr"])
    for name in ("report.csv", "report.md", "report.tex", "index.html", "pictures/violins.png"):
        assert (output / name).stat().st_size > 0, name
    page = (output / "index.html").read_text()
    assert page.count("<section>") == 1 and "late 3" in page


def test_the_page_marks_clips_that_are_out_of_sync(two, monkeypatch):
    record = {"row": "late 3", "split": "all", "clip": "s1/a", "reason": "the lips come 3 frames late"}
    monkeypatch.setattr(report_files, "unsynced", lambda scores, rows: [record])
    assert run(*two) == 0
    top, clip = (two[2] / "index.html").read_text().split("<section>")
    assert "in 1 of 2 clips (s1/a: the lips come 3 frames late)" in top and record["reason"] in clip
    assert "sync_confidence" not in clip  # figures that were not measured are not listed


def test_the_page_works_from_disk_without_network(two):
    video(two[0] / "<i>&.mp4")
    assert run(*two) == 1  # a prediction without reference

    class Links(HTMLParser):
        links: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            self.links += [value for key, value in attrs if key in ("src", "href") and value]

    parser = Links()
    text = (two[2] / "index.html").read_text()
    parser.feed(text)
    assert "&lt;i&gt;&amp;" in text and "<i>" not in text
    assert "http" not in text and "No FID: no Inception network was given." in text
    assert len([link for link in parser.links if link.endswith(".mp4")]) == 2
    for link in parser.links:
        assert not Path(link).is_absolute() and (two[2] / unquote(link)).is_file(), link


def test_a_paired_difference_from_another_method(two, tmp_path):
    video(tmp_path / "good" / "s1" / "a.mp4")
    video(tmp_path / "good" / "s2" / "b, [x]=1.mp4")
    assert run(*two) == 0
    assert run(tmp_path / "good", two[1], tmp_path / "o2", f"against={two[2] / 'report.json'}") == 0
    pair = report_of(tmp_path / "o2")["paired"][-1]
    assert pair["against"] == "late 3" and pair["differences"]["mouth_lag"]["mean"] == -3
    assert pair["differences"]["mouth_corr"]["mean"] > 0
    more = f"against={two[2] / 'report.json'}", "metrics.crop=mouth"
    assert run(tmp_path / "good", two[1], tmp_path / "o3", *more) == 1  # another crop


def test_predictions_driven_by_other_speech(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        score_unpaired, "crop", lambda frame, quad: np.full((256, 256, 3), frame[0, 0, 0], np.uint8)
    )
    for name, levels in (("a", LEVELS[::-1][:20]), ("b", LEVELS)):
        video(tmp_path / "truth" / f"{name}.mp4")
        video(tmp_path / "other" / f"{name}.mp4", levels, sound=name == "a")
    folders, output = (tmp_path / "other", tmp_path / "truth"), tmp_path / "o"
    assert run(*folders, output, "metrics.unpaired=true") == 0
    report = report_of(output)
    rows = {row["name"]: row for row in report["rows"]}
    assert report["unpaired"] and list(rows) == ["other", "ground_truth"]
    assert rows["other"]["psnr"] is rows["other"]["mouth_corr"] is rows["other"]["lmd"] is None
    assert rows["other"]["aperture_spread_ratio"] > 0.5 and rows["ground_truth"]["aperture_emd"] == 0
    (names,) = (name for name in report["absent"] if "psnr" in name)
    assert {"ssim", "lmd_mouth", "mouth_corr", "lip_gain"} <= set(names.split(", "))
    assert "say something else" in (output / "report.md").read_text()
    frames = {f["name"]: (f["frames"], f["notes"]) for f in report["files"]}
    assert frames == {"a": (20, []), "b": (24, ["the prediction has no sound"])}
    against = f"against={output / 'report.json'}"
    assert run(*folders, tmp_path / "p", against) == 1 and "metrics.unpaired" in capsys.readouterr().err
    (tmp_path / "other" / "a.mp4").write_bytes(b"no video")
    assert run(*folders, output, "metrics.unpaired=true") == 1
    statuses = {f["name"]: (f["status"], f["frames_black"]) for f in report_of(output)["files"]}
    assert statuses == {"a": ("unreadable", 24), "b": ("scored", 0)}
    assert run(*folders, output, "metrics.unpaired=true", "metrics.crop=full") == 1


def test_the_prediction_encoded_once_more_is_a_row(two):
    assert run(*two, "metrics.reencode=true") == 0
    report = report_of(two[2])
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["late 3", "ground_truth", "static", "shift_5", "reencoded"]
    assert rows["reencoded"]["n_clips"] == 2 and rows["reencoded"]["mouth_lag"] == 3
    (move,) = report["reencoded"]
    gap = rows["reencoded"]["mouth_corr"] - rows["late 3"]["mouth_corr"]
    assert move["row"] == "late 3" and move["moved"]["mouth_corr"]["mean"] == pytest.approx(gap)
    for name in ("report.md", "index.html"):
        assert "H.264 at CRF 28 moves late 3 (all) by: mouth_corr" in (two[2] / name).read_text()


def test_reports_of_other_judges_are_not_compared(two, tmp_path, capsys):
    assert run(*two) == 0
    for name, judge in (("landmark_judge", "another"), ("weights", {"landmarks": "0"})):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(report_of(two[2]) | {name: judge}))
        assert run(*two[:2], tmp_path / "o", f"against={path}") == 1
        assert (
            f"was judged by another {'landmarks' if name == 'weights' else name}" in capsys.readouterr().err
        )


def test_a_prediction_that_may_not_be_read_is_black_and_listed(two, monkeypatch):
    def refuse(path: Path) -> None:
        if path.parent.parent == two[0] and path.name == "a.mp4":
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("encoders.footage.video_reader._check_boxes", refuse)
    assert run(*two) == 1
    record = {f["name"]: f for f in report_of(two[2])["files"]}["s1/a"]
    assert record["status"] == "unreadable" and "cannot be read (Permission denied)" in record["reason"]


def test_unusual_and_damaged_files_are_recorded_one_by_one(tmp_path, capsys):
    truth, predicted, output = tmp_path / "truth", tmp_path / "made", tmp_path / "out"
    for name in ("fine", "missing", "truncated", "silent", "empty", "fast", "grey", "white", "short", "long"):
        video(truth / f"{name}.mp4")
    video(truth / "rotated.mp4", size=(64, 48))
    video(truth / "turned.mp4", size=(64, 48))
    video(truth / "faceless.mp4", [NO_FACE] * N)
    for name in ("fine", "extra", "truncated", "faceless"):
        video(predicted / f"{name}.mp4")
    data = (predicted / "truncated.mp4").read_bytes()
    (predicted / "truncated.mp4").write_bytes(data[: len(data) // 2])
    video(predicted / "silent.mp4", sound=False)
    (predicted / "empty.mp4").touch()
    video(
        predicted / "fast.mp4",
        LEVELS[(np.arange(60 * N // 25) * 25 / 60).round().astype(int).clip(max=N - 1)],
        fps=60,
    )
    greyscale(predicted / "grey.mp4")
    video(predicted / "white.mp4", [NO_FACE] * N)
    video(predicted / "short.mp4", LEVELS[:-4])
    video(predicted / "long.mp4", [*LEVELS, 90, 90])
    rotated(predicted / "rotated.mp4")
    video(predicted / "turned.mp4", size=(48, 64))
    assert run(predicted, truth, output) == 1
    error = capsys.readouterr().err
    report = report_of(output)
    files = {f["name"]: f for f in report["files"]}
    status = {name: f["status"] for name, f in files.items() if f["status"] != "scored"}
    assert status == {
        "missing": "missing",
        "extra": "extra",
        "truncated": "unreadable",
        "empty": "unreadable",
        "turned": "other_shape",
        "faceless": "bad_reference",
    }
    assert all(name in error for name in status)
    notes = {name: "; ".join(f["notes"]) for name, f in files.items()}
    assert "no sound" in notes["silent"] and "60 frames per second" in notes["fast"]
    assert "no face is found in 100.0%" in notes["white"] and "turned by 90" in notes["rotated"]
    assert "4 frames shorter" in notes["short"] and "2 frames longer" in notes["long"]
    clips = {c["clip"]: c["figures"] for c in report["clips"] if c["row"] == "made"}
    assert set(clips) == set(files) - {"extra", "faceless"}  # penalised and not dropped
    for name in ("fine", "silent", "fast", "grey", "rotated", "long"):
        assert clips[name]["mouth_corr"] > 0.99 and clips[name]["detection_rate"] == 1, name
    for name in ("missing", "truncated", "empty", "turned", "white"):
        assert clips[name]["mouth_corr"] == 0 and clips[name]["detection_rate"] == 0, name
    # Black instead of a frozen face, which would get better image figures.
    assert clips["missing"]["psnr"] < 12


def test_folders_that_do_not_belong_together(tmp_path, capsys):
    video(tmp_path / "a" / "x.mp4")
    video(tmp_path / "b" / "y.mp4")
    (tmp_path / "c").mkdir()
    for predicted, true, words in (
        ("a", "b", "relative name"),
        ("a", "c", "no video"),
        ("d", "b", "not a folder"),
    ):
        assert run(tmp_path / predicted, tmp_path / true, tmp_path / "out") == 1
        assert words in capsys.readouterr().err
    assert runtime.attempt(evaluate_alone, runtime.compose([f"predictions={tmp_path / 'a'}"])) == 1
    assert "belong together" in capsys.readouterr().err and not (tmp_path / "out" / "report.json").exists()


def test_names_match_without_suffix_and_doubles_are_refused(tmp_path):
    for name in ("a/s1/x.mp4", "b/s1/x.mpg", "b/s1/.hidden.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (pair,) = matched(tmp_path / "a", tmp_path / "b")
    assert (pair.name, pair.speaker) == ("s1/x", "s1") and pair.reference and pair.prediction
    (tmp_path / "b/s1/x.mov").touch()
    with pytest.raises(runtime.RunError, match="same name"):
        matched(tmp_path / "a", tmp_path / "b")
    assert method_name(tmp_path / "static") == "static_method"


def test_names_match_however_their_accents_are_written(tmp_path):
    one, two = "Zo\u00eb/caf\u00e9", "Zoe\u0308/cafe\u0301"  # as one character each, and as two
    for name in (f"p/{one}.mp4", f"r/{two}.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    for folders in (("p", "r"), ("r", "p")):
        (pair,) = matched(*(tmp_path / folder for folder in folders))
        assert (pair.name, pair.speaker) == (one, "Zo\u00eb")
        assert pair.prediction and pair.prediction.is_file()
        assert pair.reference and pair.reference.is_file()


def test_folders_behind_links_are_matched(tmp_path):
    for name in ("p/s1/a.mp4", "r/s1/a.mp4", "disk/p/b.mp4", "disk/r/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for side in ("p", "r"):
        (tmp_path / side / "s2").symlink_to(tmp_path / "disk" / side)
        (tmp_path / side / "s2/up").symlink_to(tmp_path / side)
    pairs = matched(tmp_path / "p", tmp_path / "r")
    assert [(pair.name, pair.speaker) for pair in pairs] == [("s1/a", "s1"), ("s2/b", "s2")]
    assert all(pair.prediction and pair.reference for pair in pairs)


def test_a_video_is_decoded_once_and_its_last_picture_held(tmp_path):
    prediction = Prediction(video(tmp_path / "x.mp4", LEVELS[:5]))
    frames = iter(prediction)
    levels = [int(frame[0, 0, 0]) for frame, _ in zip(frames, range(8), strict=False) if frame is not None]
    assert len(levels) == 8 and prediction.read == 5 and len(set(levels[4:])) == 1
    assert next(iter(Prediction(None))) is None
    assert Fraction(prediction.info.start if prediction.info else 1) == 0


def test_nothing_of_stage_1_is_imported():
    """Follows the import statements of evaluate_folders. Only stage modules are checked, because configs imports
    settings of all stages.
    """
    reached, waiting = set(), ["scripts.stages.evaluate_folders"]
    while waiting:
        name = waiting.pop()
        file = ROOT / f"{name.replace('.', '/')}.py"
        if name in reached or not file.is_file():
            continue
        reached.add(name)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    assert {"metrics.scoring.score_videos", "encoders.footage.aligned_pairs"} <= reached
    stages = tuple(
        f"scripts.stages.{name}" for name in ("train_", "invert_frames", "adapt_stage1", "evaluate_case")
    )
    used = {name for name in reached if name.startswith(stages)} | {"scripts.stages.evaluate"} & reached
    assert not used and "tuning.tuned_weights" not in reached
