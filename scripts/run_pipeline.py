"""python scripts/run_pipeline.py [experiment=demo | experiment=embedded | experiment=own_clip data.root=FOLDER]

Runs every stage in sequence: corpus, prepare, invert, stage 1, stage 2, generate, evaluate. Ends with the table of
results, the seconds of each stage and the paths of the report, a video and a strip of frames. resume=none trains stage 1
and stage 2 anew.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.run_pipeline import run_pipeline

if __name__ == "__main__":
    launch(run_pipeline)
