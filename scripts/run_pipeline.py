"""python scripts/run_pipeline.py [experiment=demo | experiment=embedded | experiment=own_clip data.root=FOLDER]

Every stage in sequence: corpus, prepare, invert, stage 1, stage 2, generate, evaluate. Ends with the table, the seconds
of each stage and the paths of the report, a video and a strip of frames.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from configs.schema import Config
from scripts.evaluate import evaluate
from scripts.generate import generate
from scripts.invert_frames import invert_frames
from scripts.runtime import Run, launch
from scripts.train_stage1 import train_stage1
from scripts.train_stage2 import train_stage2


def run_pipeline(config: Config, run: Run) -> Path:
    """report.json of the run. Stages that are done are found, not repeated."""
    invert_frames(config, run)
    train_stage1(config, run)
    train_stage2(config, run)
    generate(config, run)
    report = evaluate(config, run)
    spent = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in run.seconds.items())
    run.say(f"seconds: {spent}; together {sum(run.seconds.values()):.0f}")
    return report


if __name__ == "__main__":
    launch(run_pipeline)
