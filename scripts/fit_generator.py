"""python scripts/fit_generator.py [pairs.folder=FOLDER]

Makes the embedded generator: reads MobileStyleGAN from the random-face wheel, cuts it at 256 px and fits an image head.
Training pairs come from a folder of faces-NNN.tar + w-NNN.npz, or are sampled from the uncut network into data/. Writes
results/<name>/generator/generator_256.safetensors and an image sheet. About 40 minutes on two cores.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.assets.fit_generator import fit_generator
from scripts.core.runtime import launch

if __name__ == "__main__":
    launch(fit_generator)
