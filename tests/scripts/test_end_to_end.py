"""Every stage in one process on tiny clips of synthetic faces: from videos in a folder to a playable mp4 and a report."""

import json
import sys
from collections import Counter
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from audio.timing import RATE, frames_of_samples
from audio.waveform import Waveform, write_wav
from encoders.footage.prepare import align_photo
from encoders.footage.video_reader import iter_frames, probe, read_audio
from encoders.geometry import aperture
from metrics.report.report_files import ROW_KEYS
from scripts.core import runtime
from scripts.core.networks import build_detector
from scripts.stages import evaluate, face, generate, invert_frames, prepare_data, train_stage1, train_stage2
from scripts.stages.run_pipeline import run_pipeline
from scripts.stages.standalone import (
    evaluate_alone,
    generate_alone,
    invert_frames_alone,
    train_stage1_alone,
    train_stage2_alone,
)
from stylegan2.weights import read_weights
from trajectory.model.predictor import load_trajectory

FRAMES = 12  # number of frames of each clip in clip_folder
STAGES: list[tuple[ModuleType, str]] = [
    (prepare_data, "prepare_data"),
    (invert_frames, "invert_frames"),
    (train_stage1, "train_stage1"),
    (face, "face_of_data"),
    (train_stage2, "train_stage2"),
    (generate, "generate"),
    (evaluate, "evaluate"),
]
ENTERED: Counter[str] = Counter()
LINES: list[str] = []  # lines that the run printed
SMALL = [
    "experiment=smoke",
    "data=folder",
    "data.seen=0.0",
    "data.validation=0.0",
    "data.unseen=0.34",
    "workers=1",
]


@pytest.fixture(scope="module")
def arguments(clip_folder, tmp_path_factory) -> list[str]:
    where = tmp_path_factory.mktemp("run")
    return [
        *SMALL,
        f"data.root={clip_folder}",
        f"results_dir={where / 'results'}",
        f"data_dir={where / 'data'}",
    ]


@pytest.fixture(scope="module")
def finished(arguments):
    """The pipeline's config, run and report, with all stages run from the beginning; ENTERED counts the calls of each
    stage.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name in STAGES:
            count_calls(patch, module, name)
        patch.setattr(runtime.Run, "say", lambda run, text: LINES.append(text))
        config = runtime.resolve(runtime.compose(arguments))
        run = runtime.start(config)
        return config, run, run_pipeline(config, run)


def count_calls(patch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    """Counts calls in ENTERED, wherever the stage's function was imported."""
    function = getattr(module, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        ENTERED[name] += 1
        return function(*args, **kwargs)

    for other in list(sys.modules.values()):
        if getattr(other, "__name__", "").startswith("scripts.") and getattr(other, name, None) is function:
            patch.setattr(other, name, counted)


def test_every_stage_ran_and_was_timed(finished):
    _, run, _ = finished
    assert set(run.seconds) == {"prepare", "invert", "stage1", "stage2", "generate", "evaluate"}
    for stage in (
        "stage1/trajectory.safetensors",
        "stage1/run.json",
        "stage1/config.yaml",
        "evaluate/strip.png",
    ):
        assert (run.results / stage).is_file(), stage


def test_every_stage_is_entered_once(finished):
    assert dict(ENTERED) == {name: 1 for _, name in STAGES}


def test_every_line_is_printed_once(finished):
    assert len(LINES) > 10 and not [line for line, times in Counter(LINES).items() if times > 1]


def test_clips_and_latents_are_complete(finished):
    config, run, _ = finished
    latents = invert_frames_alone(config, run)
    entries = latents.entries()
    assert len(entries) == 3 and {e.split for e in entries} == {"train", "unseen"}
    clip = latents.codes(entries[0])
    assert clip.w.shape == (FRAMES, 14, 512)


def test_report_has_every_column(finished):
    _, _, path = finished
    report = json.loads(path.read_text())
    names = {row["name"] for row in report["rows"]}
    assert {"ground_truth", "inversion", "static", "wrong_audio", "stage1_only", "pti_truth", "full"} <= names
    for row in report["rows"]:
        assert set(ROW_KEYS) <= set(row)
    truth = next(row for row in report["rows"] if row["name"] == "ground_truth")
    assert (
        truth["psnr"] is None
        and truth["ssim"] == pytest.approx(1)
        and truth["mouth_corr"] == pytest.approx(1)
    )
    assert set(report["seconds"]) >= {"prepare", "stage1", "evaluate"}
    assert all(len(value) == 64 for value in report["weights"].values())
    assert report["tuned_on"]["frames_before"] < FRAMES  # the frames that were tuned on are not scored
    assert truth["n_frames"] == FRAMES - report["tuned_on"]["frames_before"]


def test_a_stopped_training_leaves_no_model_of_an_earlier_one(arguments, monkeypatch):
    def trained(*more: str):
        config = runtime.resolve(runtime.compose([*arguments, "name=stopped", *more]))
        return train_stage1_alone(config, runtime.start(config))

    def stopped(*_):
        raise KeyboardInterrupt

    old = trained()
    with (
        monkeypatch.context() as patch
    ):  # a failure before the training begins leaves the earlier model in place
        patch.setattr("scripts.stages.train_stage1.RenderedLoss", stopped)
        with pytest.raises(KeyboardInterrupt):
            trained("losses.lip=1.0", "resume=none")
    with pytest.raises(runtime.RunError, match=r"resume=no\.pt does not exist"):
        trained("resume=no.pt")
    assert old.exists() and trained() == old
    monkeypatch.setattr("scripts.stages.train_stage1.train", stopped)
    for words in (
        ["losses.lip=1.0", "resume=none"],
        ["losses.lip=1.0"],
    ):  # the second run resumes, and is stopped too
        with pytest.raises(KeyboardInterrupt):
            trained(*words)
        assert not old.exists()


def test_without_controls_the_method_has_the_same_figures(finished):
    """This includes lip_gain and FID, because the rows that they are computed from are still scored."""
    config, run, path = finished
    rows_with_controls = {(row["name"], row["split"]): row for row in json.loads(path.read_text())["rows"]}
    run_without_controls = replace(run, results=run.results.parent / "few")
    run_without_controls.results.joinpath("evaluate").mkdir(parents=True)
    config = replace(config, metrics=replace(config.metrics, controls=False))
    stages = {
        "stage1": replace(config.stage1, name=run.results.name),
        "stage2": replace(config.stage2, name=run.results.name),
    }
    rows = json.loads(evaluate_alone(replace(config, **stages), run_without_controls).read_text())["rows"]
    assert {row["name"] for row in rows} == {"ground_truth", "inversion", "static", "stage1_only", "full"}
    for row in rows:
        assert row == rows_with_controls[row["name"], row["split"]]


def test_generate_writes_a_playable_video_with_sound(finished, arguments, tmp_path, clip_folder, speech):
    """Speech from a wav file of another sampling rate and a face from a photo; both file names need quoting."""
    wav, output = tmp_path / "it's [my] speech, a=b.wav", tmp_path / "out = [1].mp4"
    samples = speech(9).samples[: 9 * 640 - 100]
    write_wav(wav, Waveform(samples))
    photo = tmp_path / "me, 'photo'.png"
    video = next(clip_folder.rglob("*.mp4"))
    Image.fromarray(next(iter_frames(video))).save(photo)
    raw = runtime.compose([*arguments, f"wav={wav}", f"photo={photo}", f"output={output}"])
    assert runtime.attempt(generate_alone, raw) == 0
    frames = frames_of_samples(len(samples))
    assert sum(1 for _ in iter_frames(output)) == frames == 9
    info = probe(output)
    assert info.has_audio and (info.width, info.height) == (256, 256) and info.fps == 25
    assert len(read_audio(output).samples) == pytest.approx(frames * RATE / 25, abs=RATE // 1000)
    record = json.loads((tmp_path / "out = [1].mp4.json").read_text())
    assert record["frames"] == frames and set(record["weights"]) == {
        "generator",
        "renderer",
        "encoder",
        "trajectory",
        "tuned",  # on the photo, because stage 2 was not run on it
        "motion",
    }


def test_a_folder_of_photos_is_one_face(finished, arguments, tmp_path, clip_folder):
    """All photos are used for tuning, and generate.py finds the tuned generator; the identity frame is that with the
    closest lips.
    """
    frames = list(iter_frames(next(clip_folder.rglob("*.mp4"))))[::4]
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a photo")
    config = runtime.resolve(runtime.compose([*arguments, f"photo={tmp_path}", "tuning.max_frames=3"]))
    run = runtime.start(config)
    person = train_stage2_alone(config, run)
    face = person.face
    assert len(face.frames) == len(face.w) == len(frames) == 3
    detector = build_detector(config.data)
    opening = [float(aperture(align_photo(frame, detector).landmarks[None])[0]) for frame in frames]
    assert (face.neutral == face.frames[int(np.argmin(opening))]).all()
    path = person.tuned
    assert path is not None
    assert json.loads((path.parent / "run.json").read_text())["face"] == tmp_path.name
    assert len(read_weights(path).state["pivots"]) == 3
    assert train_stage2.existing_person(config, run, face, path).tuned == path


def test_finished_stages_are_found_not_repeated(finished):
    config, run, _ = finished
    again = runtime.start(config)
    before = (run.results / "stage1" / "trajectory.safetensors").stat().st_mtime_ns
    train_stage1_alone(config, again)
    train_stage2_alone(config, again)
    assert again.seconds == {}
    assert (run.results / "stage1" / "trajectory.safetensors").stat().st_mtime_ns == before


def test_another_recipe_under_the_same_name_is_refused(finished, arguments, capsys):
    raw = runtime.compose([*arguments, "train.steps=5"])
    assert runtime.attempt(train_stage1_alone, raw) == 1
    error = capsys.readouterr().err
    assert "train.steps was 4, is 5" in error and "choose another name=NAME" in error
    assert (
        runtime.attempt(
            train_stage1_alone,
            runtime.compose([*arguments, "train.steps=5", f"stage1.name={finished[1].results.name}"]),
        )
        == 1
    )
    assert "choose another stage1.name=NAME" in capsys.readouterr().err


def test_training_anew_is_bit_identical(finished, arguments):
    _, run, _ = finished
    path = run.results / "stage1" / "trajectory.safetensors"
    before = load_file(path)
    assert runtime.attempt(train_stage1_alone, runtime.compose([*arguments, "resume=none"])) == 0
    after = load_file(path)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_ablations_train_and_share_the_tuned_generator(finished, arguments):
    """Two ablations at the smoke run's size reuse the generator that stage 2 tuned for that run."""
    _, first, _ = finished
    before = sorted(first.results.rglob("tuned.safetensors"))
    for name in ("rows_4_7", "real_target"):
        words = [
            f"experiment=[ablation/{name},smoke]",
            f"name={name}",
            "stage2.name=smoke",
            "losses.image_every=2",
        ]
        config = runtime.resolve(runtime.compose([*arguments[1:], *words]))
        run = runtime.start(config)
        model = load_trajectory(train_stage1_alone(config, run))
        assert train_stage2_alone(config, run).tuned in before
        assert set(run.seconds) == {"stage1"} and run.results.name == name
        assert model.space.rows == ((4, 8) if name == "rows_4_7" else (0, 14))
    assert sorted(first.results.parent.rglob("tuned.safetensors")) == before


def test_the_papers_experiment_trains_at_the_smoke_runs_size(clip_folder, tmp_path, monkeypatch):
    """With the paper's front end, LSTM over all of W+ and both losses; missing LPIPS weights are reported in one
    sentence.
    """
    speakers = sorted(path.name for path in clip_folder.iterdir())
    words = [
        *("experiment=[paper_grid,smoke]", f"data.root={clip_folder}", "workers=1", "name=paper"),
        "data.pattern=null",
        *(f"data.unseen_speakers=[{speakers[0]}]", "data.validation_speakers=[]", "losses.image_every=2"),
        *(f"results_dir={tmp_path / 'results'}", f"data_dir={tmp_path / 'data'}"),
    ]
    monkeypatch.setattr("encoders.features.perceptual.trunk_path", lambda net: tmp_path / f"{net}.pth")
    assert runtime.attempt(train_stage1_alone, runtime.compose(words)) == 1
    assert not list(tmp_path.rglob("manifest.json"))  # reported before anything is prepared
    config = runtime.resolve(runtime.compose([*words, "teacher.family=st-lpips"]))
    model = load_trajectory(train_stage1_alone(config, runtime.start(config)))
    net = model.net.config
    assert (net.frontend, net.cell, net.layers, net.bidirectional) == ("atvgnet", "lstm", 3, False)
    assert model.features.kind == "mfcc"


def test_a_run_that_was_killed_before_the_record_gets_it(finished):
    """run.json is written last."""
    config, run, _ = finished
    trained = run.results / "stage1" / "trajectory.safetensors"
    before, tuned = trained.read_bytes(), next((run.results / "stage2").glob("speaker*/tuned.safetensors"))
    for again, weights in ((train_stage1_alone, trained), (train_stage2_alone, tuned)):
        (weights.parent / "run.json").unlink()
        again(config, run)
        assert (weights.parent / "run.json").is_file()
    assert trained.read_bytes() == before
