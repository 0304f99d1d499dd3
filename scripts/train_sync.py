"""python scripts/train_sync.py [sync_train.folders=[DIR,DIR]] [sync_train.held=DIR] [name=NAME] [resume=auto|PATH|none]

Trains the sync network on prepared clips -> results/<name>/sync/sync.safetensors and accuracy.json: the share of
held-out clips whose offset is found within one frame. By default on this run's clips (the embedded corpus), which are
prepared first when absent. metrics.sync_weights= takes the file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.train_sync import train_sync

if __name__ == "__main__":
    launch(train_sync)
