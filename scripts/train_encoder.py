"""python scripts/train_encoder.py [experiment=e4e_ffhq encoder_train.images=FOLDER] [pairs.folder=FOLDER] [resume=auto|PATH|none]

Trains an e4e encoder -> results/<name>/encoder/encoder.safetensors, which encoder.weights= takes. By default it is the
compact one, on images with known codes: those of pairs.folder=, or the generator's samples, some of them of one person
with several expressions. experiment=e4e_ffhq trains the full one on photographs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.train_encoder import train_encoder

if __name__ == "__main__":
    launch(train_encoder)
