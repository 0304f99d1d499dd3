"""Imported by the server that forks stages (killable_stages.py): what every stage would import, without computing."""

import killable_stages
import torch

from scripts.core import runtime
from scripts.stages import prepare_data, standalone

torch.set_num_threads(1)
__all__ = ["killable_stages", "prepare_data", "runtime", "standalone"]
