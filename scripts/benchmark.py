"""python scripts/benchmark.py [what=synthesis] [output=speed.json] [benchmark.sizes=[256]] [benchmark.repeats=9]

How fast this machine is: synthesis (config F and the embedded generator), encoders, one step of tuning and of stage 1,
and the real-time factor of photo + speech -> video. Prints tables and writes results/<name>/benchmark.json, or output=.
what= restricts it to one part. Rivals run in turn in one process, and medians are compared; ratios are to the
formulation in tests/reference_synthesis.py, in float32, with the same allocator. An idle machine is needed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.benchmark import benchmark

if __name__ == "__main__":
    launch(benchmark)
