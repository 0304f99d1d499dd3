"""The ablation: each experiment differs from the full method in one setting, and their runs are gathered in one table."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import Config
from encoders.footage.corpora import assign_splits, missing_speakers
from metrics.report.published_numbers import TEST_SPEAKERS
from metrics.report.report_files import write_report
from metrics.report.report_schema import read_report
from metrics.scoring.row_accumulator import MEANS, ClipScore
from metrics.scoring.score_clips import summarise
from scripts.core import runtime
from scripts.core.provenance import plain
from scripts.core.runtime import RunError, compose, resolve
from scripts.stages import ablation
from scripts.stages.ablation import CONTROLS, ORDER, experiments
from scripts.stages.reproduce_tables import reproduce_tables
from trajectory.training.train_state import changed_keys

CHANGES: dict[str, list[str]] = {
    "no_latent": ["losses.latent"],
    "no_lpips": ["losses.image"],
    "stage1_only": ["stage1.name"],
    "lstm": ["trajectory.cell"],
    "rows_4_7": ["displacement.rows"],
    "no_identity": ["trajectory.identity"],
    "mfcc": ["audio.kind", "audio.n_mels"],
    "no_calibration": ["train.calibration"],
    "real_target": ["losses.real_target"],
}


def composed(name: str, *more: str) -> Config:
    return resolve(compose([f"experiment={name}", *more]))


def test_each_experiment_differs_from_the_full_method_in_one_thing():
    assert experiments() == list(ORDER) == ["full", *CHANGES]
    full = composed("ablation/full", "seed=1")
    assert full.name == "ablation_full_seed1" and not full.numbered and full.stage2.name == "ablation"
    assert full.train.seed == full.tuning.seed == 1
    assert full.corpus == composed("embedded").corpus and full.train.steps == composed("embedded").train.steps
    for name, changes in CHANGES.items():
        config = composed(f"ablation/{name}", "seed=1")
        assert config.name == f"ablation_{name}_seed1"
        changed = [text.split(" was ")[0] for text in changed_keys(plain(full), plain(config))]
        assert changed == sorted([*changes, "metrics.controls", "name"]), name


@pytest.mark.parametrize(
    "name", [*(f"ablation/{name}" for name in experiments()), "own_clip", "embedded", "paper_grid"]
)
def test_each_experiment_has_a_smoke_version(name):
    root = ["data.root=x"] if name in ("own_clip", "paper_grid") else []
    whole, twin = composed(name, *root), composed(f"[{name},smoke]", *root)
    assert twin.name == "smoke" and (twin.train.steps, twin.tuning.steps, twin.metrics.clips) == (4, 2, 1)
    switches = {"audio", "adapt", "augment", "data", "target", "teacher", "seed"}
    assert all(getattr(twin, part) == getattr(whole, part) for part in switches)
    assert twin.stage1.source == whole.stage1.source and twin.numbered
    # It does not write into the folder of a real run.
    assert twin.stage1.name is None and twin.stage2.name is None
    changed = {text for changes in CHANGES.values() for text in changes} - {"stage1.name"}
    for part, key in (text.split(".") for text in changed):
        assert getattr(getattr(twin, part), key) == getattr(getattr(whole, part), key), (part, key)


@pytest.mark.parametrize("name", ["tcd_timit", "grid"])
def test_the_papers_experiments_follow_all_stated_settings(name):
    config = composed(f"paper_{name}", "data.root=somewhere")
    assert config.name == name  # where reproduce_tables looks
    assert config.audio.kind == "mfcc" and (config.audio.rows, config.audio.width) == (28, 12)
    net, losses = config.trajectory, config.losses
    assert (net.frontend, net.cell, net.layers, net.hidden, net.identity) == (
        "atvgnet",
        "lstm",
        3,
        256,
        "concat",
    )
    assert net.dropout == net.identity_dropout == 0  # the paper states none
    assert (config.teacher.family, config.teacher.net) == ("lpips", "vgg")
    assert losses.space == "w" and losses.image_every == 1 and not losses.real_target
    assert losses.latent and losses.image and not losses.lip
    assert config.encoder.inversion.steps == config.encoder.inversion.person.steps == 0
    assert set(config.data.unseen_speakers) == TEST_SPEAKERS[name]
    with pytest.raises(RunError, match=r"data\.root=FOLDER"):
        composed(f"paper_{name}")


def test_named_speakers_are_never_trained_on():
    data = composed("paper_grid", "data.root=somewhere").data
    speakers = [f"s{n}" for n in range(1, 35) if n != 21 for _ in range(3)]
    splits = dict(zip(speakers, assign_splits(speakers, data), strict=True))
    assert {s for s, split in splits.items() if split == "unseen"} == TEST_SPEAKERS["grid"]
    assert {s for s, split in splits.items() if split == "val"} == set(data.validation_speakers)
    assert sum(split == "train" for split in splits.values()) == 33 - 10 - 7
    others = [s for s in speakers if s != "s33"]
    assert "unseen" in assign_splits(others, data) and missing_speakers(data, set(others)) == ["s33"]
    with pytest.raises(RunError, match="both in"):
        composed("paper_grid", "data.root=x", "data.validation_speakers=[s2]")


def test_a_new_file_is_a_new_experiment(tmp_path, monkeypatch):
    for name in ("zebra", "lstm", "full", "another"):
        (tmp_path / f"{name}.yaml").touch()
    monkeypatch.setattr(ablation, "FOLDER", tmp_path)
    assert experiments() == ["full", "lstm", "another", "zebra"]


# ------------------------------------------------------------------------------------------------------- one table


def run(results: Path, name: str, seed: int, mouth: float, clips: int = 3) -> None:
    """A report as evaluate.py writes it, in which the method's rows have this lmd_mouth."""
    values = {"ground_truth": 0.0, "inversion": 1.0, "static": 3.0, "stage1_only": mouth + 0.5, "full": mouth}
    scores = []
    for split in ("seen", "unseen", "tuned"):
        for row, value in values.items():
            if (row == "full") > (split == "tuned"):
                continue
            for n in range(clips):
                figures: dict[str, Any] = dict.fromkeys(MEANS) | {
                    "lmd_mouth": value + 0.1 * n,
                    "psnr": 20.0 + n,
                }
                none = np.zeros(0)
                scores.append(ClipScore(row, split, f"{split}/{n}", 50, figures, none, none, f"s{n}"))
    config = {"name": f"ablation_{name}_seed{seed}", "seed": seed}
    write_report(
        results / str(config["name"]) / "report.json",
        summarise(scores),
        {"generator": "ab" * 32, "trajectory": "cd" * 32},
        {"stage1": 2.0, "evaluate": 1.0},
        scores,
        bases=["full"],
        config=config,
        data={"kind": "embedded", "latents": "x"},
    )


def tables(folder: Path, *more: str) -> int:
    places = [f"output={folder / 'tables'}", f"results_dir={folder / 'results'}"]
    return runtime.attempt(reproduce_tables, compose([*places, *more]))


def test_runs_are_gathered_with_their_controls(tmp_path):
    for seed in (0, 1):
        run(tmp_path / "results", "full", seed, 1.2 + 0.2 * seed)
    run(tmp_path / "results", "no_lpips", 0, 2.0)
    assert tables(tmp_path) == 0
    report = read_report(tmp_path / "tables" / "ablation.json")  # the schema of every report
    rows = {(row["name"], row["split"]): row for row in report["rows"]}
    assert {name for name, _ in rows} == {
        "full",
        "no_lpips",
        "stage1_only",
        "ground_truth",
        "inversion",
        "static",
    }
    assert {name for name, _ in rows} <= {*experiments(), *CONTROLS}
    assert rows["full", "tuned"]["lmd_mouth"] == pytest.approx(1.4)  # of both seeds, and of 0, 0.1, 0.2
    assert (
        rows["full", "unseen"]["lmd_mouth"]
        == rows["stage1_only", "unseen"]["lmd_mouth"]
        == pytest.approx(1.9)
    )
    assert rows["stage1_only", "tuned"]["lmd_mouth"] == pytest.approx(1.9)
    assert rows["no_lpips", "tuned"]["lip_gain"] == pytest.approx(0.5)  # half of the way from 3.1 to 1.1
    assert rows["full", "tuned"]["n_clips"] == 3 and rows["full", "tuned"]["interval"]["lmd_mouth"]
    assert report["seeds"]["full"]["1"]["tuned"]["lmd_mouth"] == pytest.approx(1.5)
    assert "trajectory" not in report["weights"] and report["seconds"] == 9
    gap = next(p for p in report["paired"] if (p["against"], p["split"]) == ("no_lpips", "tuned"))
    assert gap["differences"]["lmd_mouth"]["mean"] == pytest.approx(-0.7)
    lines = list(csv.DictReader((tmp_path / "tables" / "ablation_embedded.csv").open()))
    full = next(line for line in lines if (line["split"], line["row"]) == ("tuned", "full"))
    assert full["LMD_MOUTH"] == "1.40 [1.30, 1.50]" and full["clips"] == "3"
    assert "Seeds: full 2, no_lpips 1" in (tmp_path / "tables" / "ablation_embedded.md").read_text()


def test_earlier_runs_are_added_to_a_gathered_report(tmp_path):
    for seed in (0, 1):
        run(tmp_path / "results", "full", seed, 1.2 + 0.2 * seed)
    run(tmp_path / "results", "no_lpips", 0, 2.0)
    assert tables(tmp_path) == 0
    at_once = json.loads((tmp_path / "tables" / "ablation.json").read_text())
    for name in ("full_seed0", "no_lpips_seed0"):
        shutil.rmtree(tmp_path / "results" / f"ablation_{name}")
    earlier = tmp_path / "earlier.json"
    (tmp_path / "tables" / "ablation.json").rename(earlier)
    assert tables(tmp_path, f"tables.ablation={earlier}") == 0
    later = json.loads((tmp_path / "tables" / "ablation.json").read_text())
    assert all(later[key] == at_once[key] for key in at_once if key not in ("command", "seconds"))
    assert later["seconds"] == at_once["seconds"] == 9


def test_a_report_without_runs_is_refused(tmp_path, capsys):
    run(tmp_path / "results", "full", 0, 1.0)
    report = tmp_path / "results" / "ablation_full_seed0" / "report.json"
    assert tables(tmp_path, f"tables.ablation={report}") == 1
    assert "does not list its runs" in capsys.readouterr().err


def test_runs_with_other_weights_are_refused(tmp_path, capsys):
    for name in ("full", "lstm"):
        run(tmp_path / "results", name, 0, 1.0)
    path = tmp_path / "results" / "ablation_lstm_seed0" / "report.json"
    path.write_text(path.read_text().replace("ab" * 32, "ef" * 32))
    assert tables(tmp_path) == 1 and "with different weights" in capsys.readouterr().err


def test_runs_with_another_judge_are_refused(tmp_path, capsys):
    for name in ("full", "lstm"):
        run(tmp_path / "results", name, 0, 1.0)
    path = tmp_path / "results" / "ablation_lstm_seed0" / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"perceptual_net": "lpips-vgg"}))
    assert tables(tmp_path) == 1 and "with different judges" in capsys.readouterr().err


def test_runs_that_do_not_belong_together_are_refused(tmp_path, capsys):
    run(tmp_path / "results", "full", 0, 1.0)
    run(tmp_path / "results", "lstm", 0, 1.0, clips=2)
    assert tables(tmp_path) == 1 and "with different clips" in capsys.readouterr().err
    path = tmp_path / "results" / "ablation_lstm_seed0" / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": {"name": "ablation_gru_seed0"}}))
    assert tables(tmp_path) == 1 and "no experiment" in capsys.readouterr().err
    assert not (tmp_path / "tables").exists()
