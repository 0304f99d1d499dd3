"""The loss that makes a generator show a person, and the offset that is fitted by it."""

import numpy as np
import pytest
import torch
from small_encoders import small_generator
from small_likeness import brightness_landmarks, small_likeness

from encoders.bases.viseme_basis import load_viseme_basis, random_pose
from encoders.likeness import Likeness, LikenessWeights
from encoders.person_offset import PersonConfig, person_offset
from stylegan2.images import resize, to_tensor, to_uint8
from stylegan2.latent_pairs import draw_codes
from stylegan2.networks.generator import StyleGAN2


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return small_generator(32)


def test_a_generator_that_shows_the_frames_has_no_loss(generator: StyleGAN2) -> None:
    """Nor has it one for displaced codes, whose images no frame shows."""
    codes = draw_codes(generator, 3, np.random.default_rng(0))
    d = 0.3 * torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images, moved = generator.synthesis(codes), generator.synthesis(codes + d)
    weights = LikenessWeights(response=1.0)
    points = brightness_landmarks(resize(images, 256))
    loss_of = Likeness(images, points, codes, generator, small_likeness(d), weights, size=32)
    index = torch.tensor([2, 0])
    for step in ("whole", "inner"):
        terms = loss_of.compared(images[index], index, step)
        assert max(terms.values()).item() < 1e-6
    displaced = loss_of.displaced(moved[index], index, d)
    assert displaced.keys() == {"landmarks", "response"}
    assert max(displaced.values()).item() < 1e-5
    still = loss_of.displaced(images[index], index, d)  # a mouth that does not move
    assert min(still["landmarks"], still["response"]) > 1e-4


def test_a_person_s_offset_corrects_a_constant_error_of_the_encoder(generator: StyleGAN2) -> None:
    """It is fitted to three frames and tested on others."""
    codes = draw_codes(generator, 1, np.random.default_rng(4)) + 0.1 * torch.randn(6, 8, 16)
    with torch.inference_mode():
        frames = to_tensor(to_uint8(generator.synthesis(codes).clamp(-1, 1)))
    wrong = codes + 0.4 * torch.randn(1, 8, 16)
    config = PersonConfig(steps=90, size=32)
    networks = small_likeness(0.1 * torch.randn(8, 16))
    images = frames[:3].clone()  # not an inference tensor
    fitted = images, brightness_landmarks(resize(images, 256)), wrong[:3], generator, networks, config
    offset = person_offset(*fitted)
    assert offset.shape == (8, 16)
    assert torch.equal(offset, person_offset(*fitted))

    def error(w: torch.Tensor) -> float:
        with torch.inference_mode():
            return (generator.synthesis(w) - frames[3:]).square().mean().item()

    assert error(wrong[3:] + offset) < 0.3 * error(wrong[3:])


def test_random_poses_move_the_mouth_and_fit_any_number_of_rows() -> None:
    basis = load_viseme_basis()
    random = torch.Generator().manual_seed(1)
    poses = torch.stack([random_pose(basis, random, rows=14) for _ in range(8)])
    assert poses[:, 4:8].abs().mean() > 0 and len(poses.unique(dim=0)) == 8
    long, short = (random_pose(basis, torch.Generator().manual_seed(1), rows) for rows in (18, 10))
    assert torch.equal(long[:14], poses[0]) and not long[14:].any() and torch.equal(short, poses[0, :10])
