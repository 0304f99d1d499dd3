"""python scripts/ship_stage1.py experiment=shipped|shipped_streaming data.root=FOLDER

Trains a stage-1 model that comes with the project (shipped_streaming: the one for live sound) on GRID's speaker s1 and
synthetic speakers, and writes it to trajectory/assets.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.assets.ship_stage1 import ship_stage1
from scripts.core.runtime import launch

if __name__ == "__main__":
    launch(ship_stage1)
