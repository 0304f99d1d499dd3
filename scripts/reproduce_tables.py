"""python scripts/reproduce_tables.py [tables.tcd_timit=report.json] [tables.grid=report.json]
[tables.ablation=ablation.json] [output=DIR]

The paper's Table 1 and its ablation with the published numbers beside ours, as Markdown, CSV and LaTeX, from result
files of evaluate.py; and the same measures on the embedded corpus, with our numbers only. A data set without a result
file says `not reproduced: data or weights missing`. By default results/tcd_timit/report.json and
results/grid/report.json are looked for (experiment=paper_tcd_timit and experiment=paper_grid write them). The ablation on
the embedded corpus (results/ablation_*/report.json, else docs/results/ablation.json) becomes a table of its own, with
intervals, and one report, ablation.json; given to tables.ablation later, it lends its runs to those made since.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.reproduce_tables import reproduce_tables

if __name__ == "__main__":
    launch(reproduce_tables)
