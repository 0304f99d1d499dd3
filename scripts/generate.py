"""python scripts/generate.py [wav=speech.wav] [photo=me.jpg | clip=me.mp4] [output=video.mp4] [compose=crop|photo|frame]

Makes a video with sound from speech and one face. Without photo= or clip= it shows a speaker of the data; without wav=
the speech is the part of that speaker's clip that stage 2 is not tuned on, or a synthesised sentence. The lips follow the
stage 1 that comes with the project; stage1.source=data takes this run's own, which is trained first if it is absent. The
generator is the one that train_stage2.py tuned on the same face; if there is none, it is tuned on photo= or clip= for
tuning.seconds=30 (tuned=auto|none|FILE). Uses the stage 1 that train_stage2.py adapted (adapt=personal,
adapted=auto|none|FILE), if that file exists.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import generate_alone

if __name__ == "__main__":
    launch(generate_alone, settings=["stage1.source=shipped", "tuning.seconds=30", "precision=auto"])
