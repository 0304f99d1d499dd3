"""Weight files that try to run code or to take all memory, or are damaged: refused in one sentence, nothing executed."""

import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from nvidia_pickles import recorded, write_snapshot

from encoders.networks.e4e_compact import load_encoder
from encoders.networks.ir_se import load_identity
from stylegan2.load import load_generator
from stylegan2.networks.generator import StyleGAN2
from stylegan2.public.checkpoints import MAX_PICKLE, read_public_checkpoint
from stylegan2.public.file_limits import MAX_OPCODES
from stylegan2.public.rosinality import generator_to_rosinality
from stylegan2.public.safe_pickle import read_pickle
from stylegan2.weights import WeightsError, save_weights

ROOT = Path(__file__).parents[2]
PERSISTENT = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
LOAD_BYTES = b"ctorch.storage\n_load_from_bytes\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


class Command:
    """An object whose pickle calls os.system (or eval); if executed, this creates the marker file."""

    def __init__(self, marker, function=os.system):
        self.call = (
            function,
            (f"touch '{marker}'" if function is os.system else f"open({str(marker)!r}, 'w')",),
        )

    def __reduce__(self):
        return self.call


def text(value):
    encoded = str(value).encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def raw(content):
    return b"B" + struct.pack("<I", len(content)) + content


def stored(tensor):
    """The bytes of one tensor as a .pkl holds them."""
    opcodes = pickletools.genops(pickle.dumps(tensor, protocol=3))
    return next(value for _, value, _ in opcodes if isinstance(value, bytes))


def tensor_call(storage, size, stride, offset=0):
    """_rebuild_tensor_v2(_load_from_bytes(storage), offset, size, stride, False, None)"""
    numbers = b"".join(
        b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in part) + b"t" for part in (size, stride)
    )
    return (
        REBUILD
        + b"("
        + LOAD_BYTES
        + raw(storage)
        + b"\x85R"
        + b"J"
        + struct.pack("<i", offset)
        + numbers
        + b"\x89Nt"
        + b"R"
    )


def protocol_0(marker, name=b"os\nsystem"):
    return b"c" + name + b"\n(" + text(f"touch '{marker}'") + b"tR."


EXECUTING = {
    "os.system": lambda m: (pickle.dumps(Command(m), protocol=3), "posix.system"),
    "stack global": lambda m: (pickle.dumps(Command(m), protocol=4), "posix.system"),
    "eval": lambda m: (pickle.dumps(Command(m, eval), protocol=4), "builtins.eval"),
    "exec": lambda m: (pickle.dumps(Command(m, exec), protocol=2), "__builtin__.exec"),
    "in a snapshot": lambda m: (pickle.dumps({"G_ema": [Command(m)]}, protocol=4), "posix.system"),
    "no protocol": lambda m: (b"\x80\x02" + protocol_0(m), "os.system"),
    "dotted": lambda m: (
        b"\x80\x04"
        + text("torch_utils.persistence")
        + text("_reconstruct_persistent_obj.__globals__")
        + b"\x93.",
        "_reconstruct_persistent_obj.__globals__",
    ),
    "a name of numbers": lambda m: (b"\x80\x04K\x01K\x02\x93.", "by something that is no name"),
    "inst": lambda m: (b"\x80\x02(" + text(f"touch '{m}'") + b"ios\nsystem\n.", "os.system"),
    "obj": lambda m: (b"\x80\x02(cos\nsystem\n" + text(f"touch '{m}'") + b"o.", "os.system"),
    "obj of an admitted name": lambda m: (b"\x80\x02(" + PERSISTENT + b"o.", "OBJ"),
    "extension": lambda m: (b"\x80\x02\x82\x01.", "EXT1"),
    "extension 2": lambda m: (b"\x80\x02\x83\x01\x00.", "EXT2"),
    "extension 4": lambda m: (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
    "persistent id": lambda m: (b"\x80\x02Pos.system\n.", "PERSID"),
    "binary persistent id": lambda m: (b"\x80\x02" + protocol_0(m)[:-1] + b"Q.", "os.system"),
    "newobj_ex": lambda m: (b"\x80\x04" + PERSISTENT + b")}\x92.", "NEWOBJ_EX"),
    "getattr": lambda m: (b"\x80\x02cbuiltins\ngetattr\n.", "builtins.getattr"),
    "nested reduce": lambda m: (
        b"\x80\x02ccollections\nOrderedDict\n)R)R.",
        "calls what is not a known name",
    ),
    "calls a string": lambda m: (b"\x80\x02" + text("os.system") + b")R.", "calls what is not a known name"),
    "changes a function": lambda m: (
        b"\x80\x02" + PERSISTENT + b"}" + text("__code__") + b"K\x01sb.",
        "changes an object",
    ),
    "setstate": lambda m: (
        b"\x80\x02ccollections\nOrderedDict\n)R}" + text("__setstate__") + PERSISTENT + b"sb.",
        "changes an object",
    ),
    "arguments of a dict": lambda m: (b"\x80\x02cdnnlib.util\nEasyDict\n]\x85R.", "unknown way"),
    "code in tensor bytes": lambda m: (
        b"\x80\x02" + LOAD_BYTES + raw(_legacy(Command(m))) + b"\x85R.",
        "posix.system",
    ),
    "a zip in tensor bytes": lambda m: (
        b"\x80\x02" + LOAD_BYTES + raw(b"PK\x03\x04") + b"\x85R.",
        "unknown format",
    ),
    "a dict in tensor bytes": lambda m: (
        b"\x80\x02" + LOAD_BYTES + raw(_legacy({"a": 1})) + b"\x85R.",
        "something else",
    ),
    "an object array": lambda m: (b"\x80\x02cnumpy\ndtype\n" + text("O8") + b"\x85R.", "no number"),
    "numpy's frombuffer": lambda m: (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
    "tensorflow": lambda m: (b"\x80\x03cdnnlib.tflib.network\nNetwork\n.", "legacy.py"),
}


def _legacy(content):
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.mark.parametrize("name", EXECUTING)
def test_nothing_is_executed(name, tmp_path):
    marker = tmp_path / "executed"
    content, words = EXECUTING[name](marker)
    path = tmp_path / "evil.pkl"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_pickle(path)
    message = str(caught.value)
    assert words in message and "evil.pkl" in message and "\n" not in message and len(message) < 400
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.system, eval])
def test_checkpoints_execute_nothing(zipped, function, tmp_path):
    marker = tmp_path / "executed"
    torch.save(
        {"g_ema": {}, "args": [Command(marker, function)]},
        tmp_path / "evil.pt",
        _use_new_zipfile_serialization=zipped,
    )
    name = "posix.system" if function is os.system else "eval"
    with pytest.raises(WeightsError, match=rf"evil\.pt.*{name}") as caught:
        read_public_checkpoint(tmp_path / "evil.pt")
    assert "weights_only" not in str(caught.value)  # torch's advice is to open the file unsafely
    assert not marker.exists()


# Small files that would take all memory or time, or exhaust the stack by recursion.

DEEP = 50_000
SMALL = torch.zeros(4)
PICKLES = {
    "sets": (b"\x80\x04" + b"\x8f0" * MAX_OPCODES + b"N.", "instructions"),
    "deep tuples": (b"\x80\x02)" + b"\x85" * DEEP + b".", "levels deep"),
    "deep lists": (b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".", "levels deep"),
    "doubled lists": (
        b"\x80\x02]q\x00" + b"".join(b"0](h%ch%ceq%c" % (i, i, i + 1) for i in range(120)) + b".",
        "levels deep",
    ),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "contains itself"),
    "a tuple as key": (b"\x80\x02})K\x01s.", "container as a key"),
    "memo index": (b"\x80\x02Nr\xff\xff\xff\xffj\xff\xff\xff\xff0.", None),
    "frame": (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7fN.", None),
    "huge bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "cut short"),
    "huge text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.", "cut short"),
    "huge number": (b"\x80\x02L" + b"9" * 100_000 + b"L\n.", "cut short|64 bits"),
    "number of many bytes": (
        b"\x80\x02\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000 + b".",
        "64 bits",
    ),
    "the same bytes often": (
        b"\x80\x02"
        + raw(stored(torch.zeros(250_000)))
        + b"q\x000"
        + (LOAD_BYTES + b"h\x00\x85R0") * 2000
        + b"N.",
        "its own size",
    ),
    "no elements, much shape": (
        b"\x80\x02" + tensor_call(stored(SMALL), (10**6, 10**6), (0, 0)) + b".",
        "larger than its bytes",
    ),
    "an offset beyond": (
        b"\x80\x02" + tensor_call(stored(SMALL), (4,), (1,), 1) + b".",
        "larger than its bytes",
    ),
    "a negative stride": (b"\x80\x02" + tensor_call(stored(SMALL), (4,), (-1,)) + b".", "impossible shape"),
    "pops too much": (b"\x80\x0200.", "stack"),
    "no mark": (b"\x80\x02t.", "never opened"),
    "not in the memo": (b"\x80\x02h\x05.", "damaged"),
    "two objects": (b"\x80\x02NN.", "one object"),
    "append to text": (b"\x80\x02" + text("a") + b"Na.", "holds none"),
    "unknown instruction": (b"\x80\x02\xff.", "damaged"),
    "no end": (b"\x80\x02N", "damaged"),
    "claims": (
        b"\x80\x02"
        + LOAD_BYTES
        + raw(stored(SMALL).replace(b"K\x04Nt", b"\x8a\x05\x00\x00\x00\x00\x04Nt"))
        + b"\x85R.",
        "damaged",
    ),
}


@pytest.mark.parametrize("name", PICKLES)
def test_bombs_and_damage_in_pickles(name, tmp_path):
    content, words = PICKLES[name]
    (tmp_path / "bomb.pkl").write_bytes(content)
    if words is None:  # harmless, because this reader allocates neither memo nor frames in advance
        assert read_pickle(tmp_path / "bomb.pkl") is None
        return
    with pytest.raises(WeightsError, match=words) as caught:
        read_pickle(tmp_path / "bomb.pkl")
    assert "bomb.pkl" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def deflated(path):
    torch.save({"g_ema": {"a": torch.zeros(1_000_000)}}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def expanded(path):
    torch.save({"g_ema": {"a": torch.zeros(1).expand(10**6, 10**5)}}, path)


def shared(path):
    tensor = torch.zeros(250_000)
    torch.save({"g_ema": {str(i): tensor.view(-1) for i in range(2000)}}, path)


def sparse(path):
    torch.save({"g_ema": {"a": torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**9,))}}, path)


def long_pickle(path):
    torch.save({"a": "x" * (MAX_PICKLE + 1)}, path)


def claims(path):
    torch.save({"a": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"K\x04Nt", b"\x8a\x05\x00\x00\x00\x00\x04Nt"))


def many_opcodes(path):
    torch.save({"a": [None] * MAX_OPCODES}, path, _use_new_zipfile_serialization=False)


CHECKPOINTS = {
    deflated: "compressed",
    expanded: "its own size",
    shared: "its own size",
    sparse: "not plain",
    long_pickle: "its pickle has more",
    claims: "not a PyTorch file",
    many_opcodes: "instructions",
}


@pytest.mark.filterwarnings("ignore:.*parse.*invariant")
@pytest.mark.parametrize("write", CHECKPOINTS, ids=lambda write: write.__name__)
def test_bombs_in_checkpoints(write, tmp_path):
    write(tmp_path / "bomb.pt")
    with pytest.raises(WeightsError, match=CHECKPOINTS[write]) as caught:
        read_public_checkpoint(tmp_path / "bomb.pt")
    assert "bomb.pt" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


MEASURE = """
import resource, sys
from encoders.networks.ir_se import load_identity
from encoders.networks.e4e_compact import load_encoder
from stylegan2.public.checkpoints import read_public_checkpoint
from stylegan2.load import load_generator
from stylegan2.weights import WeightsError
def read(path):
    if path.endswith(".safetensors"):
        which = path.rsplit("/", 1)[1].split()[0]
        return {"generator": load_generator, "encoder": load_encoder, "identity": load_identity}[which](path)
    return read_public_checkpoint(path)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        read(path)
        raise SystemExit(f"{path} was read")
    except WeightsError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


# Files in our format whose config states other sizes than the tensors have: loader, kind, config.
BACKBONE = {"widths": [64, 64, 128, 256, 512], "depths": [3, 4, 14, 3]}
CLAIMS = [
    ("generator 1", "stylegan2", {"resolution": 1024, "w_dim": 8192, "mapping_layers": 64}),
    ("generator 2", "stylegan2", {"resolution": 1024, "channels": {2**k: 2**14 for k in range(2, 11)}}),
    ("generator 3", "stylegan2", {"resolution": 64, "mapping_layers": 10**9}),
    ("generator 4", "stylegan2", {"resolution": 64, "w_dim": 10**15}),
    ("generator 5", "stylegan2", {"resolution": 64, "w_dim": -1}),
    ("generator 6", "stylegan2", {"resolution": 64, "z_dim": 0}),
    ("generator 7", "mobile", {"resolution": 1024, "w_dim": 10**5}),
    ("generator 8", "mobile", {"resolution": 1024, "mapping_layers": 10**9}),
    ("encoder 1", "compact_e4e", {"hidden": 10**8, "rank": 4096}),
    ("encoder 2", "compact_e4e", {"depths": [1, 2, 3, 3, 10**9]}),
    ("encoder 3", "full_encoder", {"side": 1024, "w_dim": 10**6}),
    ("encoder 4", "full_encoder", {"num_rows": 10**9}),
    ("encoder 5", "full_encoder", {"depths": [3, 4, 14, 10**9]}),
    ("identity 1", "ir_se", {**BACKBONE, "width": 10**6}),
    ("identity 2", "ir_se", {**BACKBONE, "width": 512, "depths": [10**9, 1, 1, 1]}),
]


def claiming(folder):
    paths = []
    for name, kind, config in CLAIMS:
        paths.append(folder / f"{name} {kind}.safetensors")
        save_weights({"mapping.fc0.weight": torch.zeros(4, 4)}, paths[-1], kind, config)
    return paths


def test_a_config_with_oversized_networks_is_refused_in_one_sentence(tmp_path):
    read = {"generator": load_generator, "encoder": load_encoder, "identity": load_identity}
    for path in claiming(tmp_path):
        with pytest.raises(WeightsError, match=r"does not fit its own config|does not build") as caught:
            read[path.name.split()[0]](path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message and len(message) < 500


def test_bombs_together_take_little_memory(tmp_path):
    """Measured in a separate process; without the limits, single files take gigabytes or all memory."""
    warnings.simplefilter("ignore")
    paths = []
    for name in (
        "sets",
        "deep lists",
        "huge bytes",
        "the same bytes often",
        "no elements, much shape",
        "claims",
    ):
        paths.append(tmp_path / f"{name}.pkl")
        paths[-1].write_bytes(PICKLES[name][0])
    for write in (deflated, expanded, shared, claims):
        paths.append(tmp_path / f"{write.__name__}.pt")
        write(paths[-1])
    paths += claiming(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300, f"{done.stdout} MB"


# Truncation


def tiny_generator():
    torch.manual_seed(0)
    return StyleGAN2(8, z_dim=8, w_dim=8, channels={4: 8, 8: 4}, mapping_layers=1)


def snapshot(path):
    write_snapshot(path, G_ema=recorded(tiny_generator(), "Generator"))


def zipped(path):
    torch.save({"g_ema": generator_to_rosinality(tiny_generator())}, path)


def legacy(path):
    torch.save(
        {"g_ema": generator_to_rosinality(tiny_generator())}, path, _use_new_zipfile_serialization=False
    )


def test_values_that_print_without_end_are_not_printed(tmp_path):
    """60 nested lists, each holding the one before twice, print as 2^60 items."""
    endless: list = []
    for _ in range(60):
        endless = [endless, endless]

    def change(name, module):
        if name in ("", "synthesis.b8"):
            module.class_name = module.architecture = endless

    write_snapshot(tmp_path / "g.pkl", G_ema=recorded(tiny_generator(), "Generator", change))
    with pytest.raises(WeightsError, match="architecture of a list"):
        read_public_checkpoint(tmp_path / "g.pkl").build("g_ema")
    content = {"state_dict": {"encoder.a": torch.zeros(1)}, "opts": {"encoder_type": endless}}
    torch.save(content, tmp_path / "e.pt")
    assert read_public_checkpoint(tmp_path / "e.pt").encoder_type is None


@pytest.mark.parametrize("write", [snapshot, zipped, legacy], ids=lambda write: write.__name__)
def test_truncation_at_every_kilobyte(write, tmp_path):
    path = tmp_path / "whole"
    write(path)
    content = path.read_bytes()
    assert read_public_checkpoint(path).build("g_ema").resolution == 8 and len(content) > 10_000
    for length in [*range(0, len(content), 1024), 1, 2, 3, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError) as caught:
            read_public_checkpoint(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    """Every 509th byte of a snapshot inverted: it is read, or refused in a sentence."""
    path = tmp_path / "flipped.pkl"
    snapshot(path)
    content = path.read_bytes()
    refused = 0
    for position in range(0, len(content), 509):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            read_public_checkpoint(path).build("g_ema")
        except WeightsError:
            refused += 1
    assert refused > 5
