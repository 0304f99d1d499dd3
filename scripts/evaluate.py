"""python scripts/evaluate.py [metrics.clips=6] [metrics=lpips] [name=NAME | predictions=DIR references=DIR output=DIR]

Scores stage 1 and the tuned generator on test clips, beside control baselines, and writes results/<name>/report.json
with tables and pictures. What is missing is made first, from the corpus on.
With predictions= and references=, two folders of videos with the same relative names, it scores any method's videos
against the truth and writes report.json, tables and pictures to output=.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import evaluate_alone

if __name__ == "__main__":
    launch(evaluate_alone)
