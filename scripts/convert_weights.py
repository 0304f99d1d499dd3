"""python scripts/convert_weights.py input=FILE output=FILE [network=g_ema|g|d|encoder] [layout=rosinality|nvidia]

Converts public weights (NVIDIA's .pkl; rosinality's, e4e's, pSp's and IR-SE50's .pt) to .safetensors without executing
anything in them. generator.weights= takes the result; with network=encoder, encoder.weights= does (IR-SE50:
encoder_train.identity=). Given a .safetensors file of this project, it writes a .pt in rosinality's or NVIDIA's layout;
a generator tuned by train_stage2.py is exported whole (generator.weights= names the one it was tuned from).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.convert_weights import convert_weights

if __name__ == "__main__":
    launch(convert_weights)
