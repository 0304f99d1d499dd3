"""python scripts/fit_motion.py input=FOLDER

Fits the model of natural head motion and blinks to clips of people speaking: the FrameClips below FOLDER, which
prepare_data.py writes to data/prepared-KEY (the embedded model: speaker s1 of GRID, experiment=grid_s1). Every fourth
clip is left out of the fit and compared with it. Writes results/<name>/motion/{natural_motion,figures}.json; a minute.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.assets.fit_motion import fit_motion_model
from scripts.core.runtime import launch

if __name__ == "__main__":
    launch(fit_motion_model)
