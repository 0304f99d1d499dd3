"""The selection of test clips for a report."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio.timing import SAMPLES_PER_FRAME
from encoders.manifest import ClipEntry, Manifest, write_manifest
from encoders.records import FrameClip, LatentClip
from scripts.core.runtime import Run, RunError, compose, resolve
from scripts.stages.evaluate import _controls
from scripts.stages.scored_clips import chosen_clips, spread, test_cases
from scripts.stages.stage_results import Face, Latents

test_cases.__test__ = False  # type: ignore[attr-defined]  # a function of the script, no test


def _entries(speakers: int, sentences: list[str]) -> list[ClipEntry]:
    return [
        ClipEntry(f"{who}/{text}", f"{who}/{text}.safetensors", f"s{who}", text, "seen", 50)
        for who in range(speakers)
        for text in sentences
    ]


def test_a_selection_has_all_speakers_and_both_kinds_of_sentence():
    chosen = spread(_entries(9, ["free_01", "bbaf2n"]), 9)
    assert len({entry.speaker for entry in chosen}) == 9
    assert Counter(entry.sentence for entry in chosen) == {"free_01": 5, "bbaf2n": 4}


def test_up_to_the_limit_all_clips_are_kept_in_order():
    entries = _entries(2, ["a", "b", "c"])
    assert spread(entries, 6) == entries
    assert [entry.name for entry in spread(entries, 3)] == ["0/a", "0/b", "1/b"]


def _data(folder: Path, clips: dict[str, str], face: str, *words: str):
    """Config, run, codes and face for these clips (name -> split; the speaker is the part before the slash), the face
    tuned on one of them. The n-th clip, from 1, is displaced by n in every frame."""
    latents = folder / "latents"
    entries = [
        ClipEntry(name, f"{name}.safetensors", name.split("/")[0], name, split, 9)
        for name, split in clips.items()
    ]
    zeros = np.zeros((9, 2, 4), np.float16)
    for n, e in enumerate(entries, 1):
        LatentClip(
            e.name, e.speaker, e.sentence, e.split, zeros + n, np.zeros((2, 4), np.float32), 0, "", "", ""
        ).save(latents / e.file)
    write_manifest(latents, Manifest(tuple(entries), {"prepared": "prepared"}))
    speaker, frame = face.split("/")[0], np.zeros((1, 8, 8, 3), np.uint8)
    tuned = Face(speaker, frame, zeros, zeros, frame[0], zeros[0], clip=face, used=5)
    run = Run(folder / "results", folder, None)  # type: ignore[arg-type]
    settings = ["data=folder", f"data.root={folder}", f"target.speaker={speaker}", *words]
    return resolve(compose(settings)), run, Latents(latents, folder / "prepared"), tuned


def _cases(*args: Any):
    """test_cases of _data's clips."""
    config, _, latents, tuned = _data(*args)
    return test_cases(chosen_clips(latents, config), config, latents, tuned)


def _splits(*args: Any) -> dict[str, str]:
    return {case.clip.stem: case.split for case in _cases(*args)}


def test_training_clips_are_never_scored(tmp_path):
    with pytest.raises(RunError, match="was trained on all of ann/a"):
        _splits(tmp_path, {"ann/a": "train", "bob/b": "train"}, "ann/a")
    with pytest.raises(RunError, match="No clip is left"):
        _splits(tmp_path, {"ann/a": "train", "ann/c": "train"}, "ann/a")
    clips = {"ann/a": "train", "ann/c": "seen", "bob/b": "train", "bob/d": "unseen"}
    assert _splits(tmp_path, clips, "ann/a") == {"c": "seen", "d": "unseen"}


def test_training_clips_are_scored_if_stage_1_is_of_another_corpus(tmp_path):
    words = ["stage1.source=shipped"]
    assert _splits(tmp_path, {"ann/a": "train", "bob/b": "train"}, "ann/a", *words) == {"a": "tuned"}
    clips = {"ann/a": "train", "ann/c": "train", "bob/b": "train"}
    assert _splits(tmp_path, clips, "ann/a", *words) == {"c": "tuned"}  # not a, which was tuned on


def test_target_only_leaves_out_all_others(tmp_path):
    clips = {"ann/a": "train", "ann/c": "seen", "bob/b": "train", "bob/d": "seen", "cid/e": "unseen"}
    assert _splits(tmp_path, clips, "ann/a") == {"c": "seen", "d": "seen", "e": "unseen"}
    assert _splits(tmp_path, clips, "ann/a", "metrics.target_only=true") == {"c": "seen"}


def test_a_tuned_file_is_refused(tmp_path):
    with pytest.raises(RunError, match="tuned= is for generate"):
        _splits(tmp_path, {"ann/a": "train", "ann/c": "seen"}, "ann/a", "tuned=x.safetensors")


def test_target_only_names_a_speaker_without_test_clips(tmp_path):
    clips = {"ann/a": "train", "ann/b": "train", "bob/d": "seen"}
    with pytest.raises(RunError, match="no test clip shows ann"):
        _splits(tmp_path, clips, "ann/a", "metrics.target_only=true")


def test_nothing_is_fitted_to_clips_that_are_scored(tmp_path):
    """With stage 1 from a file, the tuned person's training clips are scored, so the control baselines use other clips."""
    clips = {"ann/a": "train", "ann/c": "train", "bob/b": "train", "bob/d": "train"}
    config, run, latents, ann = _data(
        tmp_path, clips, "ann/a", f"stage1.weights={tmp_path / 'other.safetensors'}"
    )
    pictures = (
        np.zeros((9, 8, 8, 3), np.uint8),
        np.zeros((9, 68, 2), np.float32),
        np.zeros((9, 4, 2), np.float32),
    )
    for name in clips:
        sound = np.zeros(9 * SAMPLES_PER_FRAME, np.float32)
        clip = FrameClip(name, name, name, "train", "x.mp4", "0", *pictures, np.ones(9, bool), sound)
        clip.save(tmp_path / "prepared" / f"{name}.safetensors")
    cases = test_cases(chosen_clips(latents, config), config, latents, ann)
    assert [case.clip.stem for case in cases] == ["c"]
    controls = _controls(cases, latents, run)
    assert controls.mean is not None
    assert np.allclose(controls.mean, (1 + 3 + 4) / 3)  # a, b, d


def test_a_stage_1_file_trained_on_these_clips_is_recognised(tmp_path):
    clips = {"ann/a": "train", "ann/c": "train", "bob/b": "train", "bob/d": "seen"}
    file = tmp_path / "stage1" / "trajectory.safetensors"
    words = ["ann/a", f"stage1.weights={file}"]
    assert _splits(tmp_path, clips, *words) == {"c": "tuned", "d": "seen"}
    file.parent.mkdir()
    (file.parent / "recipe.json").write_text(json.dumps({"data": "latents"}))
    assert _splits(tmp_path, clips, *words) == {"d": "seen"}


def test_an_only_clip_is_scored_after_the_frames_that_its_offset_was_found_on(tmp_path):
    clips = {"ann/a": "train", "ann/c": "seen", "bob/b": "unseen"}
    starts = {case.clip.stem: case.start for case in _cases(tmp_path, clips, "ann/a")}
    assert starts == {"c": 0, "b": 5}  # 0.6 of 9 frames
