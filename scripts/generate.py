"""python scripts/generate.py [wav=speech.wav] [photo=me.jpg | clip=me.mp4] [output=video.mp4] [tuned=auto|none|FILE]

Speech and one face -> mp4 with sound. Without photo= or clip= a speaker of the data is shown, by default a synthetic
one; without wav= the part of that speaker's clip that stage 2 does not see is heard, or a synthesised sentence; stage 1 runs first if its checkpoint is absent. The generator that train_stage2.py tuned on
the same face is used if there is one, and so is the stage 1 that it adapted (adapt=personal, adapted=auto|none|FILE).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import generate_alone

if __name__ == "__main__":
    launch(generate_alone)
