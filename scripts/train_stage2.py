"""python scripts/train_stage2.py [photo=FILE|FOLDER | clip=VIDEO | target.speaker=NAME] [tuning.steps=350] [adapt=personal]

Tunes the generator on one face -> results/<name>/stage2/<face>-<hash>/tuned.safetensors (the changed tensors, the
pivots and the hash of the generator it was tuned from). Without arguments the face is the first unseen speaker of the
data. generate.py finds the file by the same photo=, clip= or speaker. With adapt=personal, stage 1 is adapted to the
person's own speech too and stored beside it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import train_stage2_alone

if __name__ == "__main__":
    launch(train_stage2_alone, settings=["stage1.source=shipped"])
