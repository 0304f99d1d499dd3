"""Pickles as NVIDIA's repositories write them: persistent objects that carry their own source code."""

import pickle
import sys
import types
from contextlib import contextmanager

from torch import nn

from stylegan2.public.nvidia import to_nvidia

TREE = {"synthesis": "SynthesisNetwork", "mapping": "MappingNetwork", "affine": "FullyConnectedLayer"}


def reconstruct(meta):
    raise AssertionError("code that must never run")


class Persistent(nn.Module):
    """A module whose pickle is (reconstruct, (meta,)), as torch_utils.persistence makes it."""

    source = "raise SystemExit"

    def __init__(self, class_name, **attributes):
        super().__init__()
        self.class_name = class_name
        self._init_args, self._init_kwargs = (), {}
        self.__dict__.update(attributes)

    def __reduce__(self):
        state = {key: value for key, value in self.__dict__.items() if key != "class_name"}
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self.class_name}
        return reconstruct, (meta | {"state": state},)


@contextmanager
def nvidia_modules():
    """Makes modules torch_utils and dnnlib importable while a file is written."""
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    sys.modules.update({name: types.ModuleType(name) for name in names})
    easy = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    vars(sys.modules["dnnlib.util"])["EasyDict"] = easy
    vars(sys.modules["torch_utils.persistence"])["_reconstruct_persistent_obj"] = reconstruct
    before = reconstruct.__module__, reconstruct.__qualname__
    reconstruct.__module__, reconstruct.__qualname__ = (
        "torch_utils.persistence",
        "_reconstruct_persistent_obj",
    )
    try:
        yield easy
    finally:
        reconstruct.__module__, reconstruct.__qualname__ = before
        for name in names:
            del sys.modules[name]


def recorded(network, kind, change=None, **kwargs):
    """Our network as NVIDIA's tree of persistent modules; change(name, module) may edit each of them."""
    root = Persistent(kind, c_dim=0, img_channels=3)
    root._init_kwargs = dict(kwargs)
    modules = {"": root}

    def module(name):
        if name not in modules:
            parent, _, last = name.rpartition(".")
            persistent = Persistent(TREE.get(last, "Layer"))
            if last.startswith("b") and last[1:].isdigit():
                vars(persistent)["architecture"] = "skip" if kind == "Generator" else "resnet"
            if last.startswith("conv") or last in ("torgb", "fromrgb"):
                activation = "linear" if last == "torgb" else "lrelu"
                vars(persistent).update(conv_clamp=network.conv_clamp, activation=activation)
            if name.startswith("mapping.fc"):
                vars(persistent).update(bias_gain=0.01, activation="lrelu")
            module(parent).add_module(last, persistent)
            modules[name] = persistent
        return modules[name]

    buffers = ("resample_filter", "noise_const", "w_avg")
    for key, value in to_nvidia(network).items():
        name, _, last = key.rpartition(".")
        if last in buffers:
            module(name).register_buffer(last, value)
        else:
            module(name).register_parameter(last, nn.Parameter(value, requires_grad=False))
    if kind == "Discriminator":
        module("b4.mbstd").group_size = network.group
    for name, made in list(modules.items()):
        if change is not None:
            change(name, made)
    return root


def write_snapshot(path, protocol=4, **networks):
    """Writes a training snapshot: the networks and the other entries of such files."""
    with nvidia_modules() as easy:
        content = {
            **networks,
            "training_set_kwargs": easy(path="data.zip", use_labels=False),
            "augment_pipe": None,
        }
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def marked(folder):
    """Source code that creates a marker file when it is executed, and the path of that file."""
    marker = folder / "executed"
    return f"open({str(marker)!r}, 'w').close()\n", marker
