"""python scripts/benchmark.py [what=synthesis] [output=speed.json] [benchmark.sizes=[256]] [benchmark.min_seconds=10]

Measures the speed of this machine: synthesis, encoders, one step of tuning and of stage 1, and photo + speech -> video
from end to end. Prints a table for each part and writes results/<name>/benchmark.json, or output=. Needs an idle
machine.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.benchmark import benchmark

if __name__ == "__main__":
    launch(benchmark)
