"""python scripts/invert_frames.py [encoder=hybrid] [encoder.weights=FILE] [displacement.reference=first]

Inverts aligned clips to W+ codes: data/latents-<hash>/ with one LatentClip for each clip, and their manifest. Clips
are prepared first when they are absent.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import invert_frames_alone

if __name__ == "__main__":
    launch(invert_frames_alone)
