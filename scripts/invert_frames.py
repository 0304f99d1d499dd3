"""python scripts/invert_frames.py [encoder=hybrid] [encoder.weights=FILE] [displacement.reference=first]

Aligned clips -> their codes in W+: data/latents-<hash>/ with one LatentClip a clip and the same manifest. Clips are
prepared first when they are absent.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.standalone import invert_frames_alone

if __name__ == "__main__":
    launch(invert_frames_alone)
