"""Training data of encoders: pairs drawn live, groups in a batch, augmentation, photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_encoders import SMALL_COMPACT, small_generator, write_pictures

from encoders.bases.viseme_basis import AXES
from encoders.networks.e4e_compact import CompactE4E
from encoders.training.encoder_data import LivePairs, augment, photographs, whole_groups
from stylegan2.latent_pairs import draw_codes


def test_live_pairs_are_new_at_every_step_and_repeatable() -> None:
    generator = small_generator(32)
    directions = torch.randn(len(AXES), 8, 16, generator=torch.Generator().manual_seed(0))
    live, again = (LivePairs(generator, directions, 3, 7, 0.5, 5, 32, seed=1) for _ in range(2))
    first, second = live(0), live(1)
    assert first.codes is not None and second.codes is not None and first.in_groups == 3
    assert first.images.shape == (7, 3, 32, 32) and (first.codes != second.codes).all()
    torch.testing.assert_close(first.images, generator.synthesis(first.codes).clamp(-1, 1))
    assert torch.equal(again(1).images, second.images), "a batch depends on seed and step alone"

    # The codes of a group differ along the viseme directions only.
    differences = (first.codes[:3] - first.codes[0]).flatten(1).T
    coefficients = torch.linalg.lstsq(directions.flatten(1).T, differences).solution
    torch.testing.assert_close(directions.flatten(1).T @ coefficients, differences, atol=1e-4, rtol=1e-4)

    # An encoder that always outputs the mean leaves all of the variance unexplained.
    encoder = CompactE4E(SMALL_COMPACT, draw_codes(generator, 2000, np.random.default_rng(0)).mean((0, 1)))
    torch.nn.init.zeros_(list(encoder.base.parameters())[-2])
    assert 0.4 < live.validate(encoder)["latent"] < 2


def test_groups_fit_into_a_batch() -> None:
    assert [whole_groups(64, 0.5, 6), whole_groups(8, 0.5, 6), whole_groups(9, 1.0, 6)] == [5, 1, 1]
    assert whole_groups(4, 1.0, 6) == whole_groups(64, 0.0, 6) == 0


def test_augmentation_changes_the_images_of_a_group_alike() -> None:
    x = torch.rand(1, 3, 64, 64).repeat(4, 1, 1, 1) - 0.5
    group = augment(x, 4, torch.Generator().manual_seed(0))
    single = augment(x, 1, torch.Generator().manual_seed(0))
    assert (group[0] - group[1]).abs().mean() < (single[0] - single[1]).abs().mean()


def test_photographs_are_split(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "faces", 5)
    train, test = photographs(folder, 32, 2, 2, 0, "cpu")
    assert [p.name for p in train.paths] == ["0.png", "1.png", "2.png"]
    assert [p.name for p in test.paths] == ["3.png", "4.png"]
    assert train(0)[0].shape == (2, 3, 32, 32)
    with pytest.raises(FileNotFoundError, match="of which"):
        photographs(folder, 32, 2, 5, 0, "cpu")
