"""The loss that makes a generator show a person, and the offset that is fitted by it."""

import numpy as np
import pytest
import torch
from small_encoders import small_generator
from small_likeness import SMALL_LIKENESS

from encoders.likeness import Likeness, LikenessWeights
from encoders.person_offset import LIP_ROWS, PersonConfig, person_offset
from stylegan2.images import to_tensor, to_uint8
from stylegan2.latent_pairs import draw_codes
from stylegan2.networks.generator import StyleGAN2

POINTS = torch.zeros(3, 68, 2)


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return small_generator(32)


def test_each_term_sees_what_it_should() -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss_of = Likeness(images, POINTS, SMALL_LIKENESS, LikenessWeights(identity=1.0), size=16)
    index = torch.tensor([2, 0])
    assert sum(sum(loss_of.terms(images[index], index, view).values()) for view in ("whole", "inner")) == 0
    framed = images[index].clone()
    framed[..., :4] += 0.5  # beside the inner face
    outside, inside = (loss_of.terms(framed, index, view) for view in ("whole", "inner"))
    assert outside["perceptual_whole"] > 0 and inside["perceptual_inner"] == 0
    assert outside["pixel"] == inside["pixel"] == pytest.approx(0.25 / 8)
    assert outside["identity"] == pytest.approx(3 * (0.5 / 8) ** 2, rel=1e-3)
    brighter = Likeness(images, POINTS, SMALL_LIKENESS, LikenessWeights(2.0, 3.0, 0.0), size=16)
    weighted = brighter.terms(framed, index, "whole")
    assert weighted["pixel"] == 2 * outside["pixel"] and weighted["identity"] == 0
    assert weighted["perceptual_whole"] == pytest.approx(3 * outside["perceptual_whole"].item())


def test_a_person_s_offset_corrects_a_constant_error_of_the_encoder(generator: StyleGAN2) -> None:
    """It is fitted to three frames and tested on others; the rows of the lips stay the encoder's."""
    torch.manual_seed(3)
    codes = draw_codes(generator, 1, np.random.default_rng(4)) + 0.1 * torch.randn(6, 8, 16)
    with torch.inference_mode():
        frames = to_tensor(to_uint8(generator.synthesis(codes).clamp(-1, 1)))
    error = 0.4 * torch.randn(1, 8, 16)
    error[:, LIP_ROWS] = 0
    wrong = codes + error
    images = frames[:3].clone()  # not an inference tensor
    fitted = images, POINTS, wrong[:3], generator, SMALL_LIKENESS, PersonConfig(steps=90, stay=0.01, size=32)
    offset = person_offset(*fitted)
    assert offset.shape == (8, 16) and not offset[LIP_ROWS].any() and offset[:4].any()
    assert torch.equal(offset, person_offset(*fitted))

    def loss(w: torch.Tensor) -> float:
        with torch.inference_mode():
            return (generator.synthesis(w) - frames[3:]).square().mean().item()

    assert loss(wrong[3:] + offset) < 0.5 * loss(wrong[3:])
