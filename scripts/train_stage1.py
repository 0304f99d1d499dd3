"""python scripts/train_stage1.py [trajectory=paper_lstm] [train.steps=3000] [name=NAME] [resume=auto|PATH|none]

Trains stage 1 (speech and an identity code -> motion in W+) -> results/<name>/stage1/trajectory.safetensors. Clips are
prepared and inverted first when they are absent. A run that was stopped goes on from its last state.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import train_stage1_alone

if __name__ == "__main__":
    launch(train_stage1_alone)
