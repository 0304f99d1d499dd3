"""python scripts/check_assets.py [check.what=[generator,encoder,visemes,corpus,motion,likeness]] [data=folder data.root=FOLDER]

Measures the embedded weights and the faces of the synthetic corpus, and prints each figure with its required limit.
Writes output=FILE, or results/<name>/assets.json, and sheets of pictures beside it. With data.root= encoder and motion
are also measured on those clips. Parts that check.what leaves out keep their earlier figures.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.assets.check_assets import check_assets
from scripts.core.runtime import launch

if __name__ == "__main__":
    launch(check_assets)
