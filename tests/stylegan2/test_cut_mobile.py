"""Cutting the wavelet generator and fitting its head."""

import pytest
import torch

from stylegan2.embedded.cut_mobile import (
    HeadConfig,
    cut,
    fit_styles,
    least_squares_head,
    sample_pixels,
    train_head,
)
from stylegan2.embedded.openvino_ir import load_uncut_generator
from stylegan2.latent_pairs import render_codes
from stylegan2.load import load_generator
from stylegan2.networks.mobile_stylegan import MobileStyleGAN
from stylegan2.protocol import sample_w


@pytest.fixture(scope="module")
def uncut() -> MobileStyleGAN:
    return load_uncut_generator()


@pytest.fixture(scope="module")
def embedded() -> MobileStyleGAN:
    return load_generator("embedded")


def test_cut_network_agrees_with_the_uncut_one(uncut: MobileStyleGAN, embedded: MobileStyleGAN) -> None:
    w = sample_w(embedded, 2, 5, 0.7)
    true = render_codes(uncut, w, 256)
    images = render_codes(embedded, w, 256)
    psnr = -10 * torch.log10(((images - true) / 2).square().mean())
    assert psnr > 25


def test_the_head_is_learned_in_all_three_fits(uncut: MobileStyleGAN) -> None:
    """The target images come from a head whose styles differ between images, so least squares alone cannot fit them."""
    torch.manual_seed(0)
    student, target_network = cut(uncut, 64), cut(uncut, 64)
    w = sample_w(target_network, 6, 0)
    with torch.no_grad():
        torch.nn.init.normal_(target_network.head.affine.weight, std=0.02)
        target = target_network.synthesis(w)
    pairs = [(w[i : i + 2], target[i : i + 2]) for i in (0, 2, 4)]

    def error() -> float:
        with torch.inference_mode():
            return (student.synthesis(w) - target).square().mean().item() / target.var().item()

    least_squares_head(student, pairs)
    linear = error()
    config = HeadConfig(places=128, head_steps=100, head_batch=6, steps=3, batch=2, crop=32, lr=1e-5)
    places = list(sample_pixels(student, pairs, config.places, 0))
    assert len(list(fit_styles(student, places, config))) == 100
    styled = error()
    losses = list(
        train_head(student, iter(3 * pairs[:1]), lambda x, y: (x - y).square().mean((1, 2, 3)), config)
    )
    assert styled < 0.8 * linear
    assert len(losses) == 3 and losses[-1]["pixel"] < losses[0]["pixel"]
