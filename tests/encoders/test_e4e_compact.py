"""The compact e4e encoder, its training, inversion, and the viseme basis."""

import numpy as np
import pytest
import torch

from encoders.bases.viseme_basis import AXES, HEAD_AXES, load_viseme_basis
from encoders.bases.viseme_fit import (
    FITTED,
    BasisConfig,
    calibrated,
    draw_expressions,
    fit_basis,
    in_all_rows,
    start_directions,
)
from encoders.bases.viseme_targets import axis_targets
from encoders.features.landmark_net import LandmarkNet, shifted
from encoders.geometry import aperture
from encoders.invert import InversionConfig, Judges, invert_frames, person_offset
from encoders.networks.e4e_compact import CompactE4E, CompactE4EConfig, load_encoder, save_encoder
from encoders.training.encoder_data import LivePairs, PairBatches, augment, whole_groups
from encoders.training.encoder_losses import ImageJudges
from encoders.training.encoder_trainer import EncoderTrainConfig, EncoderTrainer, train_encoder
from stylegan2.images import to_tensor, to_uint8
from stylegan2.latent_pairs import FolderPairs, draw_codes, write_pairs
from stylegan2.networks.generator import StyleGAN2
from stylegan2.weights import WeightsError, save_weights

TINY = CompactE4EConfig(num_rows=8, w_dim=16, widths=(8, 8, 8, 16, 16), depths=(1, 1, 1, 1, 1), rank=8)


def square(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y).square().mean((1, 2, 3))


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    torch.manual_seed(0)
    channels = {size: 8 for size in (4, 8, 16, 32)}
    return StyleGAN2(32, w_dim=16, z_dim=16, channels=channels, mapping_layers=2).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pairs(generator: StyleGAN2, tmp_path_factory: pytest.TempPathFactory) -> FolderPairs:
    root = tmp_path_factory.mktemp("pairs")
    codes = draw_codes(generator, 24, np.random.default_rng(0))
    with torch.inference_mode():
        write_pairs(root, 0, to_uint8(generator.synthesis(codes).clamp(-1, 1)), codes.numpy())
    return FolderPairs(root)


def test_an_untrained_encoder_gives_its_rows_around_w_avg() -> None:
    w_avg = torch.randn(16)
    encoder = CompactE4E(TINY, w_avg)
    base, deltas = encoder.split(torch.randn(2, 3, 256, 256))
    assert deltas.shape == (2, 8, 16) and (deltas == 0).all(), "deltas start at zero, as in e4e"
    torch.testing.assert_close(encoder(torch.zeros(1, 3, 256, 256)).shape, torch.Size([1, 8, 16]))
    assert base.shape == (2, 16)


def test_weight_file_rebuilds_the_encoder_and_others_are_refused(tmp_path) -> None:
    encoder = CompactE4E(TINY, torch.randn(16)).eval()
    save_encoder(encoder, tmp_path / "e.safetensors", {}, half=False)
    x = torch.randn(1, 3, 256, 256)
    torch.testing.assert_close(load_encoder(tmp_path / "e.safetensors")(x), encoder(x))
    save_weights(encoder, tmp_path / "g.safetensors", "stylegan2", {})
    with pytest.raises(WeightsError, match="not an encoder"):
        load_encoder(tmp_path / "g.safetensors")


def trained(
    pairs: FolderPairs, generator: StyleGAN2, folder, steps: int, resume: bool = False
) -> EncoderTrainer:
    torch.manual_seed(1)
    config = EncoderTrainConfig(
        steps=6,
        batch=6,
        group_share=0.5,
        pixel_weight=1.0,
        perceptual_weight=1.0,
        landmark_weight=0.1,
        validation=4,
        save_every=3,
        bf16=False,
    )
    trainer = EncoderTrainer(CompactE4E(TINY, generator.w_avg), config, seed=0)
    if resume:
        trainer.load(folder / "checkpoint.pt")
    torch.manual_seed(2)
    judges = ImageJudges(generator, square, LandmarkNet(8).requires_grad_(False))
    batches = PairBatches(
        pairs, pairs, 3, config.batch, config.group_share, 4, trainer.encoder.side, trainer.rng
    )
    for step, losses in train_encoder(trainer, batches, batches.validate, judges, folder):
        assert all(np.isfinite(value) for value in losses.values())
        if step == steps:
            break
    return trainer


def test_training_resumes_bit_for_bit(pairs: FolderPairs, generator: StyleGAN2, tmp_path) -> None:
    whole = trained(pairs, generator, tmp_path / "whole", 6)
    trained(pairs, generator, tmp_path / "parts", 3)
    parts = trained(pairs, generator, tmp_path / "parts", 6, resume=True)
    for a, b in zip(whole.ema.parameters(), parts.ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_live_pairs_are_new_at_every_step_and_repeat_at_the_same(generator: StyleGAN2) -> None:
    directions = torch.randn(len(AXES), 8, 16, generator=torch.Generator().manual_seed(0))
    live, again = (LivePairs(generator, directions, 3, 7, 0.5, 5, 32, seed=1) for _ in range(2))
    first, second = live(0), live(1)
    assert first.codes is not None and second.codes is not None and first.in_groups == 3
    assert first.images.shape == (7, 3, 32, 32) and (first.codes != second.codes).all()
    torch.testing.assert_close(first.images, generator.synthesis(first.codes).clamp(-1, 1))
    other = again(1)
    assert torch.equal(other.images, second.images), "a batch depends on seed and step alone"
    moved = (first.codes[:3] - first.codes[0]).flatten(1).T
    spanned = torch.linalg.lstsq(directions.flatten(1).T, moved).solution
    torch.testing.assert_close(directions.flatten(1).T @ spanned, moved, atol=1e-4, rtol=1e-4)

    encoder = CompactE4E(TINY, draw_codes(generator, 2000, np.random.default_rng(0)).mean((0, 1)))
    torch.nn.init.zeros_(list(encoder.base.parameters())[-2])
    assert 0.4 < live.validate(encoder)["latent"] < 2, "the mean leaves all of the variance"


def test_groups_fit_into_a_batch() -> None:
    assert [whole_groups(64, 0.5, 6), whole_groups(8, 0.5, 6), whole_groups(9, 1.0, 6)] == [5, 1, 1]
    assert whole_groups(4, 1.0, 6) == whole_groups(64, 0.0, 6) == 0


def test_augmentation_treats_a_group_alike() -> None:
    x = torch.rand(1, 3, 64, 64).repeat(4, 1, 1, 1) - 0.5
    out = augment(x, 4, torch.Generator().manual_seed(0))
    inside = (out[0] - out[1]).abs().mean()
    other = augment(x, 1, torch.Generator().manual_seed(0))
    assert inside < (other[0] - other[1]).abs().mean()


def test_refinement_lowers_the_distance_and_chunks_do_not_matter(generator: StyleGAN2) -> None:
    codes = draw_codes(generator, 3, np.random.default_rng(3))
    with torch.inference_mode():
        frames = to_uint8(generator.synthesis(codes).clamp(-1, 1))

    def error(steps: int, chunk: int) -> tuple[float, torch.Tensor]:
        config = InversionConfig(start="mean", steps=steps, chunk=chunk, size=32)
        w = torch.cat(list(invert_frames(frames, None, generator, config, Judges(square))))
        with torch.inference_mode():
            made = to_uint8(generator.synthesis(w).clamp(-1, 1))
        return float(np.abs(made.astype(float) - frames).mean()), w

    before, after = error(0, 2)[0], error(40, 2)
    assert after[0] < 0.8 * before
    torch.testing.assert_close(error(40, 3)[1], after[1], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="encoder"):
        next(invert_frames(frames, None, generator, InversionConfig()))


def test_a_person_s_offset_repairs_a_constant_error_of_the_encoder(generator: StyleGAN2) -> None:
    """An encoder that is wrong by the same amount in every frame is mended on frames other than those used."""
    codes = draw_codes(generator, 1, np.random.default_rng(4)) + 0.1 * torch.randn(6, 8, 16)
    error = 0.4 * torch.randn(1, 8, 16)
    with torch.inference_mode():
        frames = to_uint8(generator.synthesis(codes).clamp(-1, 1))

    class Wrong(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            nearest = (images[:, None] - to_tensor(frames)[None]).square().mean((2, 3, 4)).argmin(1)
            return codes[nearest] + error

    config = InversionConfig(person_steps=60, person_frames=2, size=32)
    judges = Judges(square)
    offset = person_offset(frames[:2], Wrong(), generator, config, judges)
    assert offset.shape == (8, 16)

    def distance(shift: torch.Tensor | None) -> float:
        w = torch.cat(list(invert_frames(frames[2:], Wrong(), generator, config, judges, shift)))
        with torch.inference_mode():
            return float(square(generator.synthesis(w), to_tensor(frames[2:])).mean())

    assert distance(offset) < 0.3 * distance(None)
    w = torch.cat(list(invert_frames(frames[2:], Wrong(), generator, config, judges, offset)))
    torch.testing.assert_close(w.diff(dim=0), codes[2:].diff(dim=0))  # the motion is as the encoder saw it


def test_a_shifted_face_has_shifted_landmarks() -> None:
    """A white dot is moved with the picture: its landmark follows."""
    image = torch.zeros(1, 3, 128, 128)
    image[0, :, 80:83, 40:43] = 1
    points = torch.full((1, 68, 2), 0.0)
    points[0, :, 0], points[0, :, 1] = 41 * 2 + 0.5, 81 * 2 + 0.5
    out, moved = shifted(image, points, torch.Generator().manual_seed(2))
    y, x = np.unravel_index(int(out[0, 0].argmax()), (128, 128))
    assert np.abs(moved[0, 0].numpy() - np.array([2 * x + 0.5, 2 * y + 0.5])).max() < 4


def test_basis_fit_moves_only_its_rows(generator: StyleGAN2) -> None:
    torch.manual_seed(0)
    net = LandmarkNet(8).eval().requires_grad_(False)
    net.mean.copy_(256 * torch.rand(68, 2))
    config = BasisConfig(rows=(3, 6), steps=3, batch=2, people=12)
    known = torch.randn(len(AXES), 8, 16)
    known[AXES.index("blink")] = 0.1
    moving = start_directions(known, config)
    losses = list(fit_basis(generator, net, moving, config))
    assert len(losses) == 3 and all(np.isfinite(list(loss.values())).all() for loss in losses)
    directions = in_all_rows(moving, generator, config)
    assert directions.shape == (len(FITTED), 8, 16)
    assert (directions[:, :3] == 0).all() and (directions[:, 7:] == 0).all() and directions[:, 3:7].any()
    assert calibrated(generator, net, directions, config).norm() >= directions.norm()
    people = list(draw_expressions(generator, known, 2, 4, np.random.default_rng(0)))
    assert people[0].shape == (4, 8, 16) and not torch.allclose(people[0][0], people[0][1])


def test_axes_that_are_not_fitted_stay_as_they_were(generator: StyleGAN2) -> None:
    torch.manual_seed(0)
    net = LandmarkNet(8).eval().requires_grad_(False)
    net.mean.copy_(256 * torch.rand(68, 2))
    known, lids = torch.randn(len(AXES), 8, 16), torch.full((8, 16), 0.1)
    config = BasisConfig(rows=(3, 6), steps=2, batch=2, people=12, axes=("wide", "blink"))
    known[AXES.index("blink")] = lids
    moving = start_directions(known, config)
    assert not moving[FITTED.index("wide")].any() and torch.equal(moving[FITTED.index("blink")], lids[3:7])
    list(fit_basis(generator, net, moving, config))
    fitted = calibrated(generator, net, in_all_rows(moving, generator, config), config)
    for k, axis in enumerate(FITTED):
        assert torch.equal(fitted[k, 3:7], known[k, 3:7]) == (axis not in config.axes)
    with pytest.raises(ValueError, match="it may hold open"):
        BasisConfig(axes=("jaw",))


def test_targets_open_the_mouth_by_a_third_of_the_eye_distance() -> None:
    face = np.zeros((68, 2))
    face[36:42], face[42:48] = (-50, 0), (50, 0)
    face[60:68, 1] = 60
    opened = face + 100 * axis_targets()[AXES.index("open")].numpy()
    assert aperture(opened) == pytest.approx(0.33, abs=0.01)


def test_embedded_basis() -> None:
    basis = load_viseme_basis()
    assert basis.names == AXES and basis.directions.shape == (len(AXES), 14, 512)
    moving = np.abs(basis.directions).max(2) > 0
    for axis, rows in zip(AXES, moving, strict=True):
        low, high = (0, 3) if axis in HEAD_AXES else (3, 7)
        assert not rows[:low].any() and rows[high] and not rows[high + 1 :].any()
    weights = np.eye(len(AXES))[:2]
    np.testing.assert_allclose(basis.displacement(weights), basis.directions[:2])
