"""python scripts/train_sync.py [sync_train.folders=[DIR,DIR]] [sync_train.held=DIR] [name=NAME] [resume=auto|PATH|none]

Trains the network that measures lip sync if the public SyncNet is absent -> results/<name>/sync/sync.safetensors
(metrics.sync_weights= takes it) and accuracy.json, the share of held-out clips whose offset it finds within one frame.
By default it is trained on this run's clips, which are prepared first when absent.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.train_sync import train_sync

if __name__ == "__main__":
    launch(train_sync)
