"""python scripts/fit_generator.py [pairs.folder=FOLDER]

Makes the embedded generator: cuts the network of the random-face wheel at 256 px and fits an image head to it, on
pairs of images and codes from pairs.folder or, without one, on samples of the uncut network. Writes
results/<name>/generator/generator_256.safetensors and a sheet that compares both. About 40 minutes on two cores.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.assets.fit_generator import fit_generator
from scripts.core.runtime import launch

if __name__ == "__main__":
    launch(fit_generator)
