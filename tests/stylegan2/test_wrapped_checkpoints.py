"""Checkpoints inside wrappers (DataParallel, torch.compile, one more dict), whole modules, and Git LFS pointers."""

import pytest
import torch
from nvidia_pickles import Persistent, marked, nvidia_modules, recorded
from torch import nn

from stylegan2.networks.generator import StyleGAN2
from stylegan2.public.checkpoints import read_public_checkpoint
from stylegan2.public.nvidia import to_nvidia
from stylegan2.public.rosinality import generator_to_rosinality
from stylegan2.weights import WeightsError, read_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    made = StyleGAN2(32, z_dim=16, w_dim=12, channels={4: 8, 8: 6, 16: 8, 32: 4}, mapping_layers=3)
    return made.eval().requires_grad_(False)


def prefixed(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: prefixed(state, "module."),
        lambda state: prefixed(state, "_orig_mod.module."),
        lambda state: {"g_ema": prefixed(state, "module."), "args": {"size": 32}},
        lambda state: {"state_dict": prefixed(prefixed(state, "decoder."), "module.")},
        lambda state: {"params_ema": state},
        lambda state: prefixed(state, "g_ema."),
    ],
)
@pytest.mark.parametrize("layout", [generator_to_rosinality, to_nvidia])
def test_wrappers_are_taken_off(tmp_path, generator, wrap, layout):
    content = wrap(dict(layout(generator)))
    nvidia_inside = layout is to_nvidia and ("g_ema" in content or "state_dict" in content)
    if nvidia_inside:
        pytest.skip("these dicts are rosinality's and e4e's alone")
    torch.save(content, tmp_path / "x.pt")
    built = read_public_checkpoint(tmp_path / "x.pt").build("g_ema")
    for name, value in generator.state_dict().items():
        if "noise_const" not in name and (layout is to_nvidia or name != "mapping.w_avg"):
            assert torch.equal(built.state_dict()[name], value), name


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module_as_pti_saves_it(tmp_path, generator, zipped, monkeypatch):
    source, marker = marked(tmp_path)
    monkeypatch.setattr(Persistent, "source", source)
    with nvidia_modules() as easy:
        tree = recorded(generator, "Generator", synthesis_kwargs=easy(channel_base=32768))
        torch.save(tree, tmp_path / "model_PTI.pt", _use_new_zipfile_serialization=zipped)
    built = read_public_checkpoint(tmp_path / "model_PTI.pt").build("g_ema")
    assert not marker.exists()
    for name, value in generator.state_dict().items():
        assert torch.equal(built.state_dict()[name], value), name


def test_another_whole_module_names_the_remedy(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "linear.pt")
    with pytest.raises(WeightsError, match=r"linear\.pt .*asks for .*Linear.*module\.state_dict") as caught:
        read_public_checkpoint(tmp_path / "linear.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_weights, read_public_checkpoint])
def test_a_git_lfs_pointer_is_named(tmp_path, read):
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 133857240\n"
    (tmp_path / "ffhq.pt").write_text(text)
    with pytest.raises(WeightsError, match=r"ffhq\.pt is a Git LFS pointer.*git lfs pull"):
        read(tmp_path / "ffhq.pt")
