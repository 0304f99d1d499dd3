"""The trajectory net: shapes, causality, frame-by-frame prediction, and dropout of the identity."""

from typing import Any

import pytest
import torch

from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW = (12, 40)
CELLS = ["gru", "lstm"]


def net(window=WINDOW, **changes: Any) -> Any:
    torch.manual_seed(0)
    small: dict[str, Any] = {"channels": 4, "audio_dim": 8, "hidden": 8, "decoder": 16}
    model = TrajectoryNet(TrajectoryConfig(**small | changes), window, identity_dims=3, num_coefficients=5)
    last: Any = model.decoder[-1]
    torch.nn.init.normal_(last.weight)
    return model.eval()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_one_row_of_coefficients_per_frame(cell, bidirectional):
    coefficients, _ = net(cell=cell, bidirectional=bidirectional, layers=2)(
        torch.randn(2, 7, *WINDOW), torch.randn(2, 3)
    )
    assert coefficients.shape == (2, 7, 5)


def test_the_papers_front_end_takes_its_mfcc_windows():
    model = net((28, 12), frontend="atvgnet", cell="lstm", layers=3, audio_dim=256)
    assert model.frontend[-4].in_features == 1024 * 12  # as ATVGnet's first dense layer
    assert model(torch.randn(1, 2, 28, 12), torch.randn(1, 3))[0].shape == (1, 2, 5)


@pytest.mark.parametrize("cell", CELLS)
def test_one_direction_takes_a_clip_in_pieces_and_uses_no_later_frame(cell):
    model = net(cell=cell, bidirectional=False, layers=2)
    values, identity = torch.randn(1, 16, *WINDOW), torch.randn(1, 3)
    whole, _ = model(values, identity)
    for lengths in ([1] * 16, [3, 1, 7, 5]):
        pieces, state = [], None
        for part in values.split(lengths, dim=1):
            piece, state = model(part, identity, state)
            pieces.append(piece)
        assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)
    changed = values.clone()
    changed[:, 11:] = 0
    assert torch.allclose(model(changed, identity)[0][:, :11], whole[:, :11], atol=1e-6)
    assert not torch.allclose(model(changed, identity)[0][:, 11], whole[:, 11], atol=1e-6)


def test_both_directions_use_later_frames():
    model, values, identity = net(), torch.randn(1, 6, *WINDOW), torch.randn(1, 3)
    changed = values.clone()
    changed[:, 5] = 0
    assert not torch.allclose(model(changed, identity)[0][:, 0], model(values, identity)[0][:, 0], atol=1e-6)


def test_an_untrained_net_predicts_the_mean():
    model = TrajectoryNet(TrajectoryConfig(channels=4, hidden=8), WINDOW, 3, 5)
    assert not model(torch.randn(2, 4, *WINDOW), torch.randn(2, 3))[0].any()


def test_identity_matters_unless_it_is_dropped():
    model, values = net(identity_dropout=1.0, dropout=0.0), torch.randn(1, 4, *WINDOW)
    first, second = torch.randn(1, 3), torch.randn(1, 3)
    assert not torch.allclose(model(values, first)[0], model(values, second)[0])
    model.train()
    assert torch.allclose(model(values, first)[0], model(values, second)[0])


def test_without_identity_only_the_speech_counts():
    model, values = net(identity="none"), torch.randn(1, 4, *WINDOW)
    assert torch.equal(model(values, torch.randn(1, 3))[0], model(values, torch.randn(1, 3))[0])


def test_the_default_is_small():
    model = TrajectoryNet(TrajectoryConfig(), (28, 80), 64, 32)
    assert sum(p.numel() for p in model.parameters()) < 1_000_000


def test_wrong_values_are_refused():
    wrong: list[dict[str, Any]] = [{"hidden": 0}, {"dropout": 1.0}, {"identity_dropout": 1.5}]
    for bad in wrong:
        with pytest.raises(ValueError):
            TrajectoryConfig(**bad)
    with pytest.raises(ValueError, match="too small"):
        net((4, 4), frontend="atvgnet")
