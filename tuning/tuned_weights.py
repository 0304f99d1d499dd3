"""A tuned generator on disk: its differences from the base generator in float16, the pivots, and the base's hash.

Shapes: N pivots, L rows of W+, D latent width.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan2.weights import WeightsError, read_weights, save_weights

KIND = "tuned"
DELTA = "delta."


def save_tuned(
    path: str | Path,
    tuned: nn.Module,
    base: nn.Module,
    pivots_NLD: Tensor,
    base_hash: str,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Writes tuned - base (float16) for each tensor that differs, the pivots (float32) and base_hash, atomically.

    base_hash: stylegan2.weights.file_hash of the base's file. Raises WeightsError if a difference is not finite.
    """
    old, new = base.state_dict(), tuned.state_dict()
    if old.keys() != new.keys():
        raise ValueError("the tuned generator and its base are not the same network")
    tensors = {
        DELTA + name: (new[name].float() - old[name].float()).to(torch.float16)
        for name in old
        if not torch.equal(new[name], old[name])
    }
    tensors["pivots"] = pivots_NLD.detach().float()
    save_weights(tensors, path, KIND, {"base_hash": base_hash}, notes)


def load_tuned(path: str | Path, base: nn.Module, base_hash: str) -> Any:
    """A new generator = base + the stored differences, frozen, in eval mode; base is not changed.

    Raises WeightsError if the file was tuned from another generator than base_hash names.
    """
    weights = read_weights(path)
    if weights.kind != KIND or "pivots" not in weights.state:
        raise WeightsError(
            f"{path} holds a {weights.kind!r} network, not a tuned generator (scripts/train_stage2.py)."
        )
    if weights.config.get("base_hash") != base_hash:
        raise WeightsError(
            f"{path} was tuned from the generator {str(weights.config.get('base_hash'))[:12]}, not from "
            f"{base_hash[:12]}: use the generator it was made with, or tune again with scripts/train_stage2.py."
        )
    generator = copy.deepcopy(base)
    state = generator.state_dict()
    for key, delta in weights.state.items():
        if not key.startswith(DELTA):
            continue
        name = key.removeprefix(DELTA)
        if name not in state or state[name].shape != delta.shape:
            raise WeightsError(
                f"{path} does not fit its base: {name} is missing or has another shape; tune again."
            )
        state[name] = (state[name].float() + delta.to(state[name].device)).to(state[name].dtype)
    generator.load_state_dict(state)
    return generator.eval().requires_grad_(False)
