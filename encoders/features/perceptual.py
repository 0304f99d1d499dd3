"""Perceptual distances with frozen networks: ST-LPIPS, whose weights are part of its wheel, and LPIPS, whose trunk
weights must be downloaded.

ST-LPIPS: Ghildyal and Liu, ECCV 2022; LPIPS: Zhang et al., CVPR 2018. Their values are not comparable, so every result
records which one was used. By default training minimises the alex variant and metrics use vgg, so that no method is
scored with the distance it was trained on.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan2.public.catalogue import path_of
from stylegan2.weights import WeightsError

Family = Literal["st-lpips", "lpips"]
Net = Literal["alex", "vgg"]
TRUNKS = {"alex": "lpips_alex", "vgg": "lpips_vgg"}  # LPIPS's entries in stylegan2/public/catalogue.py


class Perceptual(nn.Module):
    """forward(x, y): images [N, 3, H, W] in [-1, 1] -> distances [N]; gradients reach the images only.

    forward(x, y) = between(features(x), features(y)): if an image is compared with many others, its features need to be
    computed only once.
    """

    def __init__(self, name: str, network: Any):
        super().__init__()
        self.name = name
        self.network = network.eval().requires_grad_(
            False
        )  # both packages' networks have the same attributes

    def forward(self, x_N3HW: Tensor, y_N3HW: Tensor) -> Tensor:
        return self.between(self.features(x_N3HW), self.features(y_N3HW))

    def features(self, x_N3HW: Tensor) -> list[Tensor]:
        """Each layer's activations [N, C, h, w], of unit length over the channels."""
        layers = self.network.net.forward(self.network.scaling_layer(x_N3HW))
        return [F.normalize(layer, dim=1, eps=1e-10) for layer in layers]

    def between(self, x: list[Tensor], y: list[Tensor]) -> Tensor:
        """Zhang et al., equation 1: squared differences, weighted over channels, averaged over places, summed over
        layers; [N]."""
        layers = zip(self.network.lins, x, y, strict=True)
        return torch.stack([lin((a - b).square()).mean((1, 2, 3)) for lin, a, b in layers]).sum(0)


def trunk_path(net: str) -> Path:
    """Where LPIPS's trunk weights are expected."""
    return path_of(TRUNKS[net])


def demand_trunk(net: Net, family: Family) -> None:
    """Raises WeightsError if the distance's weights are not on this machine."""
    if family == "lpips" and not (trunk := trunk_path(net)).is_file():
        raise WeightsError(
            f"lpips needs {trunk}: python scripts/download_weights.py entry={TRUNKS[net]}, or choose st-lpips, "
            "whose weights are installed (teacher.family, metrics.perceptual, encoder_train.perceptual)."
        )


def load_perceptual(net: Net = "alex", family: Family = "st-lpips") -> Perceptual:
    """The distance, frozen; WeightsError if its weights are not on this machine (nothing is downloaded)."""
    quiet = contextlib.redirect_stdout(io.StringIO())  # both packages print while they load
    with quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if family == "st-lpips":
            from stlpips_pytorch import stlpips

            return Perceptual(
                f"st-lpips-{net}", stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False)
            )
        demand_trunk(net, family)
        return Perceptual(f"lpips-{net}", _lpips(net, trunk_path(net)))


def _lpips(net: Net, trunk: Path) -> nn.Module:
    """LPIPS with the trunk weights of this file. It is built with a random trunk; otherwise its constructor would
    download one.
    """
    import lpips

    network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    try:
        state = torch.load(trunk, map_location="cpu", weights_only=True)
        # slice2.3.weight of LPIPS is features.3.weight of torchvision.
        for name, value in network.net.state_dict().items():
            value.copy_(state[f"features.{name.split('.', 1)[1]}"])
    except (EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{trunk} is not the trunk of LPIPS {net}, or is damaged: download it again."
        ) from error
    return network
