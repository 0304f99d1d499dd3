"""Every stage in sequence: corpus, prepare, invert, stage 1, stage 2, generate, evaluate. Ends with the table, the seconds
of each stage and the paths of the report, a video and a strip of frames.
resume=none makes stage 1 and stage 2 anew.
"""

from dataclasses import replace
from pathlib import Path

from configs.schema import Config
from scripts.core.runtime import Run
from scripts.stages.evaluate import chosen_clips, evaluate
from scripts.stages.generate import generate
from scripts.stages.invert_frames import invert_frames
from scripts.stages.train_stage1 import train_stage1
from scripts.stages.train_stage2 import train_stage2


def run_pipeline(config: Config, run: Run) -> Path:
    """report.json of the run. Stages that are done are found, not repeated."""
    latents = invert_frames(config, run)
    chosen_clips(latents, config)  # says now, not after training, that none is left to test
    train_stage1(config, run)
    train_stage2(config, run)
    made = replace(config, resume="auto")
    generate(made, run)
    report = evaluate(made, run)
    spent = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in run.seconds.items())
    run.say(f"seconds: {spent}; together {sum(run.seconds.values()):.0f}")
    return report
