"""python scripts/prepare_data.py [data=folder data.root=FOLDER] [corpus.seed=1] [workers=2]

Aligns the faces of videos: data/prepared-<hash>/ with one FrameClip for each video, and manifest.json, which lists
every rejected video with the reason. Without arguments the embedded corpus of synthetic speakers is built first when
absent.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.prepare_data import prepare_data

if __name__ == "__main__":
    launch(prepare_data)
