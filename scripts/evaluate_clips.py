"""python scripts/evaluate_clips.py experiment=own_clip data.root=FOLDER [target.controls=[NAME]] [resume=none]

Scores the method on every speaker of a folder in turn: generator and stage 1 are fitted to the first target.share of
the speaker's clip and tested on the rest. Writes results/<name>/clips.json and clips.md: all rows of each clip, means
weighted by duration with bootstrap intervals, and clips that could not be used with the reason. Speakers in
target.controls are left out of the means. Existing reports with the same settings are reused.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import evaluate_clips_alone

if __name__ == "__main__":
    launch(evaluate_clips_alone)
