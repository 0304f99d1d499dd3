"""python scripts/app.py [page.port=7860] [page.max_seconds=60] [generator=mobile_1024]

A web page on this computer alone: a photo and a voice become a video, by the stages of generate.py and train_stage2.py.
Needs gradio: pip install -e '.[app]'. Ctrl-C ends it; photos, voices and videos are removed then.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.page import serve

if __name__ == "__main__":
    launch(serve, settings=["stage1.source=shipped", "tuning.seconds=30", "precision=auto"])
