"""python scripts/doctor.py

Lists the installed packages, the available weights (with hash and terms of use), and how to get missing ones.
Changes nothing. Exit code 1 if the default run would not work.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.doctor import doctor

if __name__ == "__main__":
    launch(doctor, computes=False)
