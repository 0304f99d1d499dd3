"""python scripts/convert_weights.py input=FILE output=FILE [network=g_ema|g|d|encoder] [layout=rosinality|nvidia]

Reads weights of others (NVIDIA .pkl; rosinality, e4e, pSp, IR-SE50 .pt) without executing anything in them,
prints what it found, tries the network, and writes a .safetensors that generator.weights= takes, or, with
network=encoder, encoder.weights= (IR-SE50: encoder_train.identity=). Given one of our
.safetensors it goes the other way and writes a .pt in the layout of rosinality's or NVIDIA's code; a generator tuned by
train_stage2.py is exported whole (generator.weights= names the one it was tuned from).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our packages win over installed namesakes

from scripts.core.runtime import launch
from scripts.stages.convert_weights import convert_weights

if __name__ == "__main__":
    launch(convert_weights)
