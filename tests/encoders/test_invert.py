"""Inversion: refinement of codes frame by frame."""

import numpy as np
import pytest
import torch
from small_encoders import small_generator, squared_error

from encoders.invert import InversionConfig, invert_frames
from stylegan2.images import to_uint8
from stylegan2.latent_pairs import draw_codes
from stylegan2.networks.generator import StyleGAN2


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
        return torch.cat(list(invert_frames(frames, None, generator, config, squared_error)))

    def error(w: torch.Tensor) -> float:
        return float(np.abs(rendered(generator, w).astype(float) - frames).mean())

    w = refined(40, 2)
    assert error(w) < 0.8 * error(refined(0, 2))
    torch.testing.assert_close(refined(40, 3), w, atol=1e-4, rtol=1e-4)


def test_missing_networks_are_refused(generator: StyleGAN2) -> None:
    frames = rendered(generator, generator.w_avg.expand(1, 8, 16))
    with pytest.raises(ValueError, match="encoder"):
        next(invert_frames(frames, None, generator, InversionConfig()))
    with pytest.raises(ValueError, match="perceptual distance"):
        next(invert_frames(frames, None, generator, InversionConfig(start="mean", steps=1)))
