"""python scripts/stream.py photo=me.jpg [wav=speech.wav] [output=video.mp4] [stream.format=mp4|raw] < 16 kHz mono 16-bit

Makes a video of the face while the speech comes: from standard input (raw samples, signed 16-bit little endian) or wav=,
to standard output as a fragmented mp4 or raw rgb24 frames, or to output=. The lips follow the stage 1 for live sound that
comes with the project. Uses the generator that train_stage2.py tuned on the same face (tuned=auto|none|FILE).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.stream import stream

if __name__ == "__main__":
    launch(stream, computes=False, settings=["stage1.source=streaming", "motion=none", "precision=auto"])
