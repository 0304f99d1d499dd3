"""Pairs of images and codes in a folder."""

import numpy as np
import pytest
import torch

from stylegan2.images import to_uint8
from stylegan2.latent_pairs import (
    FolderPairs,
    TrainingImagesError,
    batches,
    draw_codes,
    render_codes,
    write_pairs,
)
from stylegan2.load import load_generator
from stylegan2.networks.mobile_stylegan import MobileStyleGAN


@pytest.fixture(scope="module")
def embedded() -> MobileStyleGAN:
    return load_generator("embedded")


def test_pairs_round_trip(tmp_path, embedded: MobileStyleGAN) -> None:
    codes = draw_codes(embedded, 3, np.random.default_rng(0), mixing=1.0)
    assert codes.shape == (3, 14, 512) and not torch.equal(codes[:, 0], codes[:, -1])
    images = to_uint8(render_codes(embedded, codes, 256))
    write_pairs(tmp_path, 0, images, codes.numpy())
    pairs = FolderPairs(tmp_path)
    assert len(pairs) == 3
    torch.testing.assert_close(pairs.codes(np.arange(3)), codes, atol=2e-3, rtol=1e-3)
    assert np.abs(to_uint8(pairs.images(np.arange(3))).astype(int) - images).mean() < 4  # JPEG
    order = batches(np.arange(3), 2, np.random.default_rng(0))
    assert len(next(order)) == 2
    with pytest.raises(TrainingImagesError, match=r"faces-NNN\.tar"):
        FolderPairs(tmp_path / "nothing")
    for file in ("faces-000.tar", "w-000.npz"):
        data = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(data[: len(data) // 2])
        with pytest.raises(TrainingImagesError, match="missing or damaged"):
            FolderPairs(tmp_path)
        (tmp_path / file).write_bytes(data)
