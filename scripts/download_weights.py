"""python scripts/download_weights.py [entry=NAME]

Fetches one file of the catalogue of public weights (stylegan2/public/catalogue.py) into torch's hub cache, or into the
folder that TALKING_HEADS_WEIGHTS names, and checks its SHA-256. Without entry= it lists the catalogue.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.download_weights import download_weights

if __name__ == "__main__":
    launch(download_weights)
