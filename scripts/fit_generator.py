"""python scripts/fit_generator.py [pairs.folder=FOLDER]

Makes the embedded generator: reads MobileStyleGAN from the random-face wheel, cuts it at 256 px and fits the image
head (stylegan2/embedded/cut_mobile.py). Pairs of image and code come from a folder of faces-NNN.tar + w-NNN.npz, or, without one,
from the uncut network, sampled here into data/. Writes results/<name>/generator/generator_256.safetensors and a
sheet (uncut network above, cut below) with the held-out perceptual distance. About 40 minutes on two cores.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.assets.fit_generator import fit_generator
from scripts.core.runtime import launch

if __name__ == "__main__":
    launch(fit_generator)
