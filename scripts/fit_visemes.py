"""python scripts/fit_visemes.py [pairs.folder=FOLDER] [pairs.count=4000] [basis.axes=[wide,round]] [basis.landmark_steps=0]

Makes the embedded viseme basis: trains the landmark network on dlib's landmarks of generator samples (with
basis.landmark_steps=0 the embedded network is used), finds the head's axes and the lids by regression on these samples
(encoders/bases/attribute_regression.py), and fits the mouth's axes and the lids through the network
(encoders/bases/viseme_fit.py). Axes left out of basis.axes stay those of the embedded basis; the mouth's axes alone need no
labelled samples. Samples come from a folder of faces-NNN.tar + w-NNN.npz, or from the generator. Writes
results/<name>/visemes/{landmark_net,viseme_basis}.safetensors and a sheet of people x axes; check_assets.py measures
the result. About 30 minutes on two cores.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.assets.fit_visemes import fit_visemes
from scripts.core.runtime import launch

if __name__ == "__main__":
    launch(fit_visemes)
