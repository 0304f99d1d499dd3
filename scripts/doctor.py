"""python scripts/doctor.py

Prints what is installed, which weights are there (with hash and terms of use), and what is missing and how to get it.
Changes nothing. Exit code 1 if the default run would not work.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.doctor import doctor

if __name__ == "__main__":
    launch(doctor)
