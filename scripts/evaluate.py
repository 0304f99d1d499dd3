"""python scripts/evaluate.py [metrics.clips=6] [metrics=lpips] [name=NAME | predictions=DIR references=DIR output=DIR]

With predictions= and references=, two folders of videos of the same relative names, it scores any method's videos
against the truth and writes report.json with its tables and pictures to output= (scripts/stages/evaluate_folders.py). Without them it
scores stage 1 and the tuned generator on test clips, beside the controls, and writes results/<name>/report.json (with
.md and .csv) and results/<name>/evaluate/ (strip, aperture plot, video beside the truth). What is missing is made
first, from the corpus on.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import evaluate_alone

if __name__ == "__main__":
    launch(evaluate_alone)
