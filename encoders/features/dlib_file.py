"""Reads the layers of a network that dlib has serialised.

The format: an integer is a control byte (low four bits: number of bytes, highest bit: negative) and the
little-endian bytes of its magnitude; a real number is two integers, mantissa and exponent of 2; a text is its length
and its bytes; a flag is one character, 0 or 1; a tensor is its version, its four sizes (samples, channels, rows,
columns) and its float32 numbers. Layers are nested, so the file begins with the versions of all of them, the outermost
first; the layers follow, the innermost first. A layer is its name, its settings and its parameters, then the state of
its training, three flags and three tensors, which are passed over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_INNERMOST = 3  # version of the layer next to the input; those of the layers around it are lower


@dataclass(frozen=True)
class DlibLayer:
    """name: as in the file. settings: its integers, such as strides, in the file's order. parameters: float32, flat."""

    name: str
    settings: tuple[int, ...]
    parameters: np.ndarray


@dataclass(frozen=True)
class DlibNetwork:
    """mean: subtracted from red, green and blue (0-255). side: px of the input. layers: in the order of evaluation."""

    mean: tuple[float, ...]
    side: int
    layers: tuple[DlibLayer, ...]


def read_dlib_network(content: bytes) -> DlibNetwork:
    """A network for RGB images, trained on distances, from the bytes of its file; ValueError for any other content."""
    file = _Values(content)
    if file.integer() != 1 or file.text() != "loss_metric_2":
        raise ValueError("it does not begin like a dlib network that was trained on distances")
    file.reals(2)  # the loss's margin and threshold
    while (version := file.integer()) != _INNERMOST:
        if version not in (1, 2):
            raise ValueError(f"no layer's version is at byte {file.at}")
    if file.text() != "input_rgb_image_sized":
        raise ValueError("its input is not an RGB image of a fixed size")
    mean = file.reals(3)
    side, _ = file.integers(2)
    layers = [_layer(file)]
    file.integer()  # how many samples the first layer makes of one
    while file.at < len(content):
        layers.append(_layer(file))
    return DlibNetwork(mean, side, tuple(layers))


class _Values:
    """The values in a file's bytes, one after another; `at` is the next one's place."""

    def __init__(self, content: bytes):
        self.content, self.at = content, 0

    def bytes(self, count: int) -> bytes:
        if not 0 <= count <= len(self.content) - self.at:
            raise ValueError(
                f"it has {len(self.content)} bytes, but the value at byte {self.at} would take {count}"
            )
        self.at += count
        return self.content[self.at - count : self.at]

    def integer(self) -> int:
        control = self.bytes(1)[0]
        magnitude = int.from_bytes(self.bytes(control & 0x0F), "little")
        return -magnitude if control & 0x80 else magnitude

    def integers(self, count: int) -> tuple[int, ...]:
        return tuple(self.integer() for _ in range(count))

    def reals(self, count: int) -> tuple[float, ...]:
        pairs = [self.integers(2) for _ in range(count)]
        if any(abs(exponent) > 900 for _, exponent in pairs):  # a mantissa has at most 120 bits
            raise ValueError(f"no real number is at byte {self.at}")
        return tuple(mantissa * 2.0**exponent for mantissa, exponent in pairs)

    def text(self) -> str:
        return self.bytes(self.integer()).decode("latin-1")

    def tensor(self) -> np.ndarray:
        """Its numbers, flat."""
        version, *sizes = self.integers(5)
        if version != 2 or min(sizes) < 0:
            raise ValueError(f"no tensor is at byte {self.at}")
        return np.frombuffer(self.bytes(4 * math.prod(sizes)), dtype="<f4")


def _layer(file: _Values) -> DlibLayer:
    start, name = file.at, file.text()
    settings: tuple[int, ...] = ()
    parameters = np.zeros(0, np.float32)
    # The integers passed over are the versions and sizes of the parts of `parameters`, which follow from the settings, and
    # an affine layer's mode; the real numbers are factors of the learning rate and of the weight decay.
    if name == "con_4":
        parameters = file.tensor()
        settings = file.integers(7)  # filters, rows, columns, strides y and x, paddings y and x
        file.integers(10)
        file.reals(4)
    elif name == "affine_":
        parameters = file.tensor()
        file.integers(11)
    elif name == "fc_2":
        settings = file.integers(2)  # outputs, inputs
        parameters = file.tensor()
        file.integers(10)
        settings += file.integers(1)  # 0: with biases, 1: without
        file.reals(4)
    elif name in ("max_pool_2", "avg_pool_2"):
        settings = file.integers(6)  # rows, columns (0: all), strides y and x, paddings y and x
    elif name not in ("relu_", "add_prev_"):
        raise ValueError(f"no layer that is known is at byte {start}")
    file.bytes(3)
    for _ in range(3):
        file.tensor()
    return DlibLayer(name, settings, parameters)
