"""Loads a generator from one of our weight files, the embedded one by default."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stylegan2.networks.generator import StyleGAN2
from stylegan2.networks.mobile_stylegan import MobileStyleGAN
from stylegan2.weights import WeightsError, fill, read_weights

EMBEDDED = Path(__file__).parent / "assets" / "generator_256.safetensors"
KINDS: dict[str, Callable[..., nn.Module]] = {"stylegan2": StyleGAN2, "mobile": MobileStyleGAN}


def load_generator(path: str | Path = "embedded", device: torch.device | str = "cpu") -> Any:
    """The `protocol.Generator` in a weight file, in eval mode with frozen parameters. Raises WeightsError.

    path: a file, or "embedded" for the generator that ships with the repository. Gradients still flow to w; code that
    tunes the weights calls requires_grad_() on a copy.
    """
    path = EMBEDDED if str(path) == "embedded" else Path(path)
    weights = read_weights(path)
    if weights.kind not in KINDS:
        raise WeightsError(
            f"{path} holds a {weights.kind!r} network, not a generator ({' or '.join(KINDS)})."
        )
    network = fill(lambda: KINDS[weights.kind](**weights.config), weights, path)
    return network.to(device).eval().requires_grad_(False)
