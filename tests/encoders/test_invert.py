"""Inversion: refinement of codes frame by frame, and the shared offset of a person."""

import numpy as np
import pytest
import torch
from small_encoders import small_generator, squared_error

from encoders.invert import InversionConfig, InversionLosses, invert_frames, person_offset
from stylegan2.images import to_tensor, to_uint8
from stylegan2.latent_pairs import draw_codes
from stylegan2.networks.generator import StyleGAN2

LOSSES = InversionLosses(squared_error)


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return small_generator(32)


def rendered(generator: StyleGAN2, w_NLD: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return to_uint8(generator.synthesis(w_NLD).clamp(-1, 1))


def test_refinement_reduces_the_error_independently_of_the_chunk_size(generator: StyleGAN2) -> None:
    frames = rendered(generator, draw_codes(generator, 3, np.random.default_rng(3)))

    def refined(steps: int, chunk: int) -> torch.Tensor:
        config = InversionConfig(start="mean", steps=steps, chunk=chunk, size=32)
        return torch.cat(list(invert_frames(frames, None, generator, config, LOSSES)))

    def error(w: torch.Tensor) -> float:
        return float(np.abs(rendered(generator, w).astype(float) - frames).mean())

    w = refined(40, 2)
    assert error(w) < 0.8 * error(refined(0, 2))
    torch.testing.assert_close(refined(40, 3), w, atol=1e-4, rtol=1e-4)


def test_missing_networks_are_refused(generator: StyleGAN2) -> None:
    frames = rendered(generator, generator.w_avg.expand(1, 8, 16))
    with pytest.raises(ValueError, match="encoder"):
        next(invert_frames(frames, None, generator, InversionConfig()))
    with pytest.raises(ValueError, match="InversionLosses"):
        next(invert_frames(frames, None, generator, InversionConfig(start="mean", steps=1)))


def test_a_person_s_offset_corrects_a_constant_error_of_the_encoder(generator: StyleGAN2) -> None:
    """The offset is fitted to two frames and tested on others; the encoder's motion between frames is unchanged."""
    codes = draw_codes(generator, 1, np.random.default_rng(4)) + 0.1 * torch.randn(6, 8, 16)
    error = 0.4 * torch.randn(1, 8, 16)
    frames = rendered(generator, codes)

    class ConstantError(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            nearest = (images[:, None] - to_tensor(frames)[None]).square().mean((2, 3, 4)).argmin(1)
            return codes[nearest] + error

    config = InversionConfig(person_steps=60, person_frames=2, size=32)
    offset = person_offset(frames[:2], ConstantError(), generator, config, LOSSES)
    assert offset.shape == (8, 16)

    def inverted(offset_LD: torch.Tensor | None) -> torch.Tensor:
        return torch.cat(
            list(invert_frames(frames[2:], ConstantError(), generator, config, LOSSES, offset_LD))
        )

    def distance(w: torch.Tensor) -> float:
        with torch.inference_mode():
            return float(squared_error(generator.synthesis(w), to_tensor(frames[2:])).mean())

    w = inverted(offset)
    assert distance(w) < 0.3 * distance(inverted(None))
    torch.testing.assert_close(w.diff(dim=0), codes[2:].diff(dim=0))
