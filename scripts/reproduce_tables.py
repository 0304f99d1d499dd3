"""python scripts/reproduce_tables.py [tables.tcd_timit=report.json] [tables.grid=report.json] [tables.ablation=ablation.json] [output=DIR]

Writes the paper's Table 1 and ablation with the published numbers beside ours, as Markdown, CSV and LaTeX, from report
files of evaluate.py, and the ablation on the embedded corpus. A data set without a report says `not reproduced: data or
weights missing`. Reports are looked for under results/ when tables.* does not name them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.reproduce_tables import reproduce_tables

if __name__ == "__main__":
    launch(reproduce_tables)
