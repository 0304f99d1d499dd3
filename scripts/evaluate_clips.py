"""python scripts/evaluate_clips.py experiment=own_clip data.root=FOLDER [target.controls=[NAME]] [resume=none]

Every speaker of a folder in turn, as run_pipeline.py treats one: generator and stage 1 are fitted to the first
target.share of the clip and tested on the rest of it. Writes results/<name>/clips.json and clips.md: all rows per clip,
means weighted by duration with bootstrap intervals over clips, and on how many clips the method beats static and ridge.
Speakers in target.controls are scored but kept out of the means. A clip that cannot be used is listed with the reason.
Reports that are there already, made with the same settings, are not made again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import evaluate_clips_alone

if __name__ == "__main__":
    launch(evaluate_clips_alone)
