"""Reading rosinality's files; the export is in test_golden.py."""

from typing import cast

import pytest
import torch

from stylegan2.networks.generator import StyleGAN2
from stylegan2.protocol import sample_w
from stylegan2.public.checkpoints import read_checkpoint, read_public_checkpoint
from stylegan2.public.rosinality import (
    discriminator_from_rosinality,
    generator_from_rosinality,
    generator_to_rosinality,
)
from stylegan2.weights import WeightsError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_rosinality_files_with_a_decoder_prefix_and_without_noise_load(tmp_path):
    torch.manual_seed(0)
    generator = StyleGAN2(32, z_dim=16, w_dim=12, channels={4: 8, 8: 6, 16: 8, 32: 4}, mapping_layers=3)
    generator.eval().requires_grad_(False).mapping.w_avg.fill_(0.25)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    theirs = {f"decoder.{k}": v for k, v in generator_to_rosinality(generator).items() if "noises" not in k}
    torch.save({"state_dict": theirs, "latent_avg": generator.w_avg[None].repeat(8, 1)}, tmp_path / "e4e.pt")
    first, second = (
        cast(StyleGAN2, read_public_checkpoint(tmp_path / "e4e.pt").build("g_ema")) for _ in range(2)
    )
    w = sample_w(generator, 1, seed=0)
    assert torch.equal(first.w_avg, generator.w_avg)
    assert torch.equal(first.synthesis(w, noise="none"), generator.synthesis(w, noise="none"))
    assert torch.equal(first.synthesis(w), second.synthesis(w))  # the random noise used instead is fixed


def test_unsafe_or_damaged_checkpoints_are_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"g_ema": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    for name in ("evil.pt", "text.pt", "absent.pt"):
        with pytest.raises(WeightsError, match=name):
            read_checkpoint(tmp_path / name)
    for convert in (generator_from_rosinality, discriminator_from_rosinality):
        with pytest.raises(WeightsError):
            convert({"style.1.weight": torch.zeros(4, 4)})
