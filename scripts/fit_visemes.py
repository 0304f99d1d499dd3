"""python scripts/fit_visemes.py [pairs.folder=FOLDER] [pairs.count=4000] [basis.axes=[wide,round]] [basis.landmark_steps=0]

Makes the embedded viseme basis: trains the landmark network on dlib's labels of generator samples (0 steps: uses the
embedded one) and fits the axes of mouth, lids and head to it. Axes that basis.axes leaves out stay as embedded.
Writes results/<name>/visemes/{landmark_net,viseme_basis}.safetensors and a sheet of people x axes. About 30 minutes on
two cores.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.assets.fit_visemes import fit_visemes
from scripts.core.runtime import launch

if __name__ == "__main__":
    launch(fit_visemes)
