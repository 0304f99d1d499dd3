"""python scripts/evaluate.py [metrics.clips=6] [metrics=lpips] [name=NAME | predictions=DIR references=DIR output=DIR]

Scores stage 1, the tuned generator and control baselines on test clips, and writes results/<name>/report.json
with tables and pictures. Earlier stages whose results are missing are run first.
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
