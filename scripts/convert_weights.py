"""python scripts/convert_weights.py input=FILE output=FILE [network=g_ema|g|d|encoder] [layout=rosinality|nvidia]

Reads public weights (NVIDIA .pkl; rosinality, e4e, pSp, IR-SE50 .pt) without executing anything in them, prints what
they contain, computes one output with the network as a check, and writes a .safetensors for generator.weights= or, with
network=encoder, for encoder.weights= (IR-SE50: encoder_train.identity=). From one of our .safetensors it writes a .pt
in the layout of rosinality's or NVIDIA's code; a generator tuned by train_stage2.py is exported whole, with
generator.weights= naming the generator it was tuned from.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.convert_weights import convert_weights

if __name__ == "__main__":
    launch(convert_weights)
