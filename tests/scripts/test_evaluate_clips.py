"""A folder of the user's clips, from videos to the table: stage 1 adapted to each person, and a clip that is too
short.
"""

import json
import re

import pytest
from conftest import SEEDS, noise_bursts, talking_frames

from encoders.footage.video_writer import write_video
from scripts.core import runtime
from scripts.stages.standalone import evaluate_clips_alone, generate_alone, train_stage2_alone

pytestmark = pytest.mark.slow
LONG, SHORT = 64, 30


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    where = tmp_path_factory.mktemp("own")
    for name, seed, frames in (("long", SEEDS[0], LONG), ("short", SEEDS[1], SHORT)):
        (where / "videos").mkdir(exist_ok=True)
        write_video(
            where / "videos" / f"{name}.mp4", talking_frames(seed, frames), noise_bursts(frames, seed)
        )
    return [
        *("experiment=[own_clip,smoke]", "workers=1", "target.share=0.85"),
        *("adapt.steps=2", "adapt.every=1", "adapt.batch=2", "adapt.length=8"),
        *(f"data.root={where / 'videos'}", f"results_dir={where / 'r'}", f"data_dir={where / 'd'}"),
    ]


def run_of(arguments: list[str]):
    config = runtime.resolve(runtime.compose(arguments))
    return config, runtime.start(config, quiet=True)


def test_each_clip_is_adapted_to_and_scored(arguments, capsys, tmp_path):
    config, run = run_of(arguments)
    path = evaluate_clips_alone(config, run)
    content = json.loads(path.read_text())
    assert set(content["failed"]) == {"short"} and "adapt=none" in content["failed"]["short"]
    rows = {r["row"]: r for r in content["clips"]}
    assert {"static", "inversion", "ridge", "stage1_base", "stage1_only", "full"} <= rows.keys()
    assert rows["full"]["frames"] == LONG - round(0.85 * LONG)  # no frame that was used for fitting
    assert (
        rows["ridge"]["figures"]["lmd_mouth"] is None and rows["ridge"]["figures"]["mouth_corr"] is not None
    )
    assert rows["stage1_only"]["figures"] != rows["stage1_base"]["figures"]
    assert "| long | full |" in re.sub(" +", " ", path.with_suffix(".md").read_text())

    report = run.results / "clips" / "long" / "report.json"
    assert len(json.loads(report.read_text())["weights"]["adapted"]) == 64
    written_at = report.stat().st_mtime_ns
    for more in ([], ["workers=2", "target.controls=[long]"]):  # neither setting changes a figure
        evaluate_clips_alone(*run_of([*arguments, *more]))
        assert report.stat().st_mtime_ns == written_at

    # generate uses the same stage 1 after train_stage2 has adapted it for this run
    long = [*arguments, "target.speaker=long"]
    assert runtime.attempt(train_stage2_alone, runtime.compose(long)) == 0
    assert runtime.attempt(generate_alone, runtime.compose([*long, f"output={tmp_path / 'a.mp4'}"])) == 0
    assert "adapted" in json.loads((tmp_path / "a.mp4.json").read_text())["weights"]
    without = [*long, "adapted=none", f"output={tmp_path / 'b.mp4'}"]
    assert runtime.attempt(generate_alone, runtime.compose(without)) == 0
    assert "adapted" not in json.loads((tmp_path / "b.mp4.json").read_text())["weights"]

    # stage 1 must not be trained on scored clips
    capsys.readouterr()
    assert runtime.attempt(evaluate_clips_alone, runtime.compose([*arguments, "stage1.source=data"])) == 1
    assert "Stage 1 would be trained on the clips" in capsys.readouterr().err

    # another base, and speech that is too short: exit 1, one sentence, no file
    capsys.readouterr()
    file = next((run.results / "stage2").rglob("adapted-*.safetensors"))
    arguments_of_other = [
        *long,
        "stage1.source=data",
        f"adapted={file}",
        f"output={tmp_path / 'c.mp4'}",
    ]
    assert runtime.attempt(generate_alone, runtime.compose(arguments_of_other)) == 1
    error = capsys.readouterr().err
    assert "was adapted from the stage-1 model" in error and "Traceback" not in error
    assert not (tmp_path / "c.mp4").exists()
    assert runtime.attempt(train_stage2_alone, runtime.compose([*arguments, "target.speaker=short"])) == 1
    assert "too few for adapting stage 1" in capsys.readouterr().err
