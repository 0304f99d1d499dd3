"""NVIDIA's networks <-> ours: the records of a .pkl (stylegan2/public/safe_pickle.py), or a plain state dict.

Our tensors have NVIDIA's names. Tensors do not show the clamp and the group size, so these are read from the attributes
of the recorded modules. Networks whose attributes show that they compute something different from ours are refused.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan2.networks.discriminator import Discriminator
from stylegan2.networks.generator import StyleGAN2
from stylegan2.networks.ops import fir
from stylegan2.public.file_limits import Record
from stylegan2.weights import WeightsError

NAMES = {"G_ema": "g_ema", "G": "g", "D": "d"}  # NVIDIA's names -> those of network= in convert_weights.py
MAX_MODULES = 2000  # largest number of modules; a generator of 1024 px has about 80
LINEAR = ("affine", "out", "skip", "torgb")  # layers without activation


def records(content: Any) -> dict[str, Record]:
    """{"g_ema", "g", "d"} -> network, of a training snapshot or of a single pickled network. Raises WeightsError."""
    if isinstance(content, Record):
        content = {"G_ema" if "synthesis" in _part(content, "_modules") else "D": content}
    if not isinstance(content, dict) or not any(isinstance(content.get(name), Record) for name in NAMES):
        raise WeightsError("This pickle holds none of the networks G_ema, G and D of a StyleGAN2 snapshot.")
    return {ours: content[name] for name, ours in NAMES.items() if isinstance(content.get(name), Record)}


def generator_from_record(record: Record) -> StyleGAN2:
    """Raises WeightsError for a network that our StyleGAN2 does not compute."""
    modules = _modules(record)
    if any(name.startswith("synthesis.input.") or name == "synthesis.input" for name in modules):
        raise WeightsError("This is a StyleGAN3 generator: only StyleGAN2 generators can be used here.")
    state = _tensors(modules)
    _check(record, modules, state, architecture="skip")
    return StyleGAN2.from_state_dict(state, _conv_clamp(record, modules))


def discriminator_from_record(record: Record) -> Discriminator:
    """Raises WeightsError for a network that our Discriminator does not compute."""
    modules = _modules(record)
    state = _tensors(modules)
    _check(record, modules, state, architecture="resnet")
    minibatch_std = modules.get("b4.mbstd")
    group = minibatch_std.state.get("group_size", 4) if minibatch_std else 4
    if type(group) is not int or not 1 <= group <= 1024:
        raise WeightsError(
            "This discriminator's minibatch groups have no fixed size: it cannot be used here."
        )
    return Discriminator.from_state_dict(state, _conv_clamp(record, modules), group)


READERS: dict[str, Callable[[Record], nn.Module]] = {
    "g_ema": generator_from_record,
    "g": generator_from_record,
    "d": discriminator_from_record,
}


def has_w_avg(record: Record) -> bool:
    """Whether a generator's record holds the mean of W; otherwise it is estimated."""
    return "mapping.w_avg" in _tensors(_modules(record))


def to_nvidia(network: StyleGAN2 | Discriminator) -> OrderedDict[str, Tensor]:
    """The state dict that NVIDIA's Generator or Discriminator loads strictly.

    The clamp and the group size are stored in the dict's `_metadata`, which load_state_dict ignores.
    """
    state = OrderedDict((key, value.detach().cpu().clone()) for key, value in network.state_dict().items())
    kernel = fir(torch.zeros(1, 1))[0, 0].clone()
    if isinstance(network, StyleGAN2):
        blocks = [f"synthesis.b{size}" for size in network.channels]
        filtered = [*blocks, *(f"{block}.conv{i}" for block in blocks for i in (0, 1))]
        filtered.remove("synthesis.b4.conv0")
    else:
        blocks = [f"b{size}" for size in network.sizes]
        layers = ("conv0", "conv1", "skip")
        filtered = [*blocks, *(f"{block}.{layer}" for block in blocks for layer in layers)]
        filtered += [f"{blocks[0]}.fromrgb", "b4.conv"]
    state.update((f"{name}.resample_filter", kernel.clone()) for name in filtered)
    extra = {key: network.config[key] for key in ("conv_clamp", "group") if key in network.config}
    state._metadata = {"": {"version": 1, **extra}}  # type: ignore[attr-defined]
    return state


def from_nvidia(state: Mapping[str, Tensor]) -> StyleGAN2 | Discriminator:
    """The network of a state dict with NVIDIA's names, without a clamp unless `to_nvidia` noted one."""
    _check_filters(state)
    metadata = getattr(state, "_metadata", None)
    extra = metadata.get("", {}) if isinstance(metadata, dict) else {}
    clamp = clamp_value(extra.get("conv_clamp"))
    if "mapping.fc0.weight" in state:
        return StyleGAN2.from_state_dict(state, clamp)
    group = extra.get("group", 4)
    return Discriminator.from_state_dict(state, clamp, group if type(group) is int and group > 0 else 4)


def clamp_value(value: Any) -> float | None:
    """A clamp as a file gives it. Raises WeightsError unless it is a positive number or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise WeightsError("This network has a clamp that is no positive number: the file is damaged.")
    return float(value)


def _modules(record: Record) -> dict[str, Record]:
    """Every module of a network by its dotted name: "" (the network), "synthesis", "synthesis.b4", …"""
    modules: dict[str, Record] = {}
    pending = [("", record)]
    while pending:
        name, module = pending.pop()
        modules[name] = module
        for child, value in _part(module, "_modules").items():
            if isinstance(value, Record):
                pending.append((f"{name}.{child}".lstrip("."), value))
        if len(modules) + len(pending) > MAX_MODULES:
            raise WeightsError(f"This network has more than {MAX_MODULES} modules: it is no StyleGAN2.")
    return modules


def _tensors(modules: Mapping[str, Record]) -> dict[str, Tensor]:
    """The state dict of a recorded network."""
    return {
        f"{name}.{key}".lstrip("."): value
        for name, module in modules.items()
        for part in ("_parameters", "_buffers")
        for key, value in _part(module, part).items()
        if isinstance(value, Tensor)
    }


def _part(module: Record, part: str) -> dict[str, Any]:
    content = module.state.get(part)
    return content if isinstance(content, dict) else {}


def _check(
    record: Record, modules: Mapping[str, Record], state: Mapping[str, Tensor], architecture: str
) -> None:
    """Raises WeightsError if the attributes show that our networks would not compute the same."""

    def refuse(reason: str) -> None:
        raise WeightsError(f"This {record.class_name} {reason}: it cannot be used here.")

    discriminator_with_mapping = architecture == "resnet" and "mapping" in modules
    if _setting(record, "c_dim", 0) or "mapping.embed" in modules or discriminator_with_mapping:
        refuse("is conditional (c_dim > 0)")
    if (channels := _setting(record, "img_channels", 3)) != 3:
        refuse(f"has {_scalar(channels)} image channels instead of 3")
    for name, module in modules.items():
        attributes = module.state
        if (other := attributes.get("architecture", architecture)) != architecture:
            refuse(f"has the architecture {_scalar(other)}, not {architecture!r}")
        if attributes.get("use_noise", True) is not True:
            refuse("has layers without noise")
        expected = "linear" if name.rsplit(".", 1)[-1] in LINEAR else "lrelu"
        if (activation := attributes.get("activation", expected)) != expected:
            refuse(f"has the activation {_scalar(activation)} in {name}")
        rate = attributes.get("bias_gain", 0.01) if name.startswith("mapping.fc") else 0.01
        if not (isinstance(rate, int | float) and abs(rate - 0.01) < 1e-8):
            refuse("has a mapping network with another learning rate than 0.01")
    _check_filters(state)


def _scalar(value: Any) -> str:
    """A value for a message. Containers are not printed: nested ones could be endlessly long."""
    return repr(value)[:20] if isinstance(value, str | int | float | None) else f"of a {type(value).__name__}"


def _check_filters(state: Mapping[str, Tensor]) -> None:
    kernel = fir(torch.zeros(1, 1))[0, 0]
    for key, value in state.items():
        if key.endswith("resample_filter") and (
            value.shape != kernel.shape or not torch.allclose(value.float(), kernel, atol=1e-4)
        ):
            raise WeightsError(
                f"These tensors use another filter than [1, 3, 3, 1] ({key}): it cannot be used here."
            )


def _conv_clamp(record: Record, modules: Mapping[str, Record]) -> float | None:
    """The clamp of the layers or, where these have none, that of the network's arguments; None if neither has one.

    (The defaults of NVIDIA's repositories differ.)
    """
    values: set[Any] = {
        clamp_value(module.state["conv_clamp"])
        for name, module in modules.items()
        if "conv_clamp" in module.state
        and "weight" in _part(module, "_parameters")
        and not name.endswith("skip")
    }
    if len(values) > 1:
        raise WeightsError("The layers of this network have different clamps: it cannot be used here.")
    return values.pop() if values else clamp_value(_setting(record, "conv_clamp", None))


def _setting(record: Record, key: str, default: Any) -> Any:
    """An attribute of the network, or a keyword argument of it or of its synthesis network."""
    keywords = record.state.get("_init_kwargs")
    places = [record.state, keywords]
    if isinstance(keywords, dict):
        places += [keywords.get("synthesis_kwargs"), keywords.get("block_kwargs")]
    return next((place[key] for place in places if isinstance(place, dict) and key in place), default)
