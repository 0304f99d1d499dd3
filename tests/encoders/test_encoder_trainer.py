"""Training of encoders: progressive deltas, latent discriminator, one step's terms, resuming, and the smoke experiment."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_encoders import SMALL_COMPACT, small_generator, squared_error, write_pictures

from encoders.features.landmark_net import LandmarkNet
from encoders.networks.e4e import FullEncoder, FullEncoderConfig
from encoders.networks.e4e_compact import CompactE4E, load_encoder
from encoders.networks.ir_se import BackboneConfig, IdentityNet, load_identity, start_backbone
from encoders.networks.latent_discriminator import (
    Adversary,
    AdversaryConfig,
    LatentPool,
    latent_discriminator,
)
from encoders.training.encoder_config import EncoderTrainConfig
from encoders.training.encoder_data import EncoderBatch, PairBatches, held_batches, photo_batches
from encoders.training.encoder_losses import ImageLosses, mean_image_losses
from encoders.training.encoder_trainer import EncoderTrainer, stage_at, update_mean
from encoders.training.resume import TrainingError
from scripts.core import runtime
from scripts.stages.train_encoder import train_encoder
from stylegan2.image_sources import GeneratorSamples
from stylegan2.images import to_uint8
from stylegan2.latent_pairs import FolderPairs, draw_codes, write_pairs
from stylegan2.networks.generator import StyleGAN2
from stylegan2.weights import WeightsError, save_weights

BODY = {"widths": (8, 8, 8, 16, 16), "depths": (1, 1, 1, 1)}
NET = FullEncoderConfig(num_rows=10, w_dim=16, head_width=16, side=32, **BODY)
TRAIN = EncoderTrainConfig(
    network="full", source="samples", steps=6, batch=3, image_batch=3, lr=1e-3, schedule="constant", clip=None,
    progressive_start=2, progressive_every=2, pixel="l2", pixel_weight=1.0, perceptual_weight=0.8,
    identity_weight=0.1, identity="given", adversary=AdversaryConfig(weight=0.1, r1_every=2, pool=4),
    image_size=32, ema=0.0, augment=False, validation=3, save_every=3,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def generator() -> StyleGAN2:
    return small_generator(64)


@pytest.fixture(scope="module")
def losses(generator: StyleGAN2) -> ImageLosses:
    torch.manual_seed(1)
    identity = IdentityNet(BackboneConfig(**BODY), 8).eval().requires_grad_(False)
    return ImageLosses(generator, squared_error, identity=identity)


def new_trainer(config: EncoderTrainConfig = TRAIN) -> EncoderTrainer:
    torch.manual_seed(2)
    return EncoderTrainer(FullEncoder(NET, torch.zeros(16)), config, seed=0)


def test_deltas_are_added_one_after_another() -> None:
    stages = [
        stage_at(step, 20_000, 2000, 17) for step in (0, 19_999, 20_000, 21_999, 22_000, 52_000, 300_000)
    ]
    assert stages == [0, 0, 1, 1, 2, 17, 17]
    assert stage_at(0, None, 2000, 13) == 13


def test_the_running_mean_copies_statistics() -> None:
    mean, module = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    module.weight.data.fill_(3.0)
    module.running_mean = torch.tensor([1.0, 2.0])
    update_mean(mean, module, 0.75)
    assert mean.weight.tolist() == [1.5, 1.5] and mean.running_mean is not None
    assert mean.running_mean.tolist() == [1.0, 2.0]


def test_the_discriminator_is_four_layers() -> None:
    network = latent_discriminator(512, 4)
    linear = [part for part in network if isinstance(part, torch.nn.Linear)]
    assert [part.out_features for part in linear] == [512, 512, 512, 1]
    slopes = [part.negative_slope for part in network if isinstance(part, torch.nn.LeakyReLU)]
    assert slopes == [0.2] * 3 and isinstance(network[-1], torch.nn.Linear)


def test_the_pool_fills_and_then_exchanges_half_of_the_rows() -> None:
    pool, random = LatentPool(50), torch.Generator().manual_seed(0)
    first = torch.arange(50.0)[:, None]
    assert torch.equal(pool.mix(first, random), first) and len(pool.rows) == 50
    later = torch.arange(50.0, 450.0)[:, None]
    mixed = pool.mix(later, random)
    old = int((mixed != later).sum())
    assert 160 < old < 240  # 200 +- 4 standard deviations
    everything = torch.cat([mixed, torch.stack(pool.rows)]).flatten().sort().values
    assert torch.equal(everything, torch.arange(450.0))  # every row is returned or stored exactly once


def test_the_discriminator_learns_to_tell_codes_from_samples() -> None:
    torch.manual_seed(0)
    adversary = Adversary(4, AdversaryConfig(weight=1.0, lr=1e-2, r1_gamma=0.1, r1_every=4, pool=8))
    random = torch.Generator().manual_seed(0)
    losses = []
    for step in range(60):
        terms = adversary.train_step(torch.randn(16, 4), torch.randn(16, 3, 4) + 3, step, random)
        losses.append(terms["discriminator"].item())
        assert ("r1" in terms) == (step % 4 == 0)
    assert losses[0] == pytest.approx(2 * np.log(2), abs=0.4) and np.mean(losses[-10:]) < 0.5
    far, near = (adversary.encoder_loss(torch.randn(16, 3, 4) + shift) for shift in (3.0, 0.0))
    assert near < far  # codes distributed like samples of W have a lower loss
    w = torch.zeros(1, 1, 4, requires_grad=True)
    adversary.encoder_loss(w).backward()
    assert w.grad is not None and w.grad.any()
    assert not any(p.requires_grad for p in adversary.network.parameters())


def test_one_step_has_the_terms_of_the_paper(generator: StyleGAN2, losses: ImageLosses) -> None:
    trainer = new_trainer()
    images = GeneratorSamples(generator, 3, 0)(0)[0]
    terms = trainer.train_step(EncoderBatch(images), losses)
    expected = {"delta", "pixel", "perceptual", "identity", "adversarial", "discriminator", "r1"}
    assert set(terms) == expected | {"gradient"}
    assert terms["delta"] == 0 and all(np.isfinite(list(terms.values())))
    assert "r1" not in trainer.train_step(EncoderBatch(images), losses)
    assert isinstance(trainer.encoder, FullEncoder)
    heads = trainer.encoder.styles.by_row()
    before = {row: heads[f"{row}.linear.weight"].clone() for row in (0, 1, 2)}
    assert trainer.train_step(EncoderBatch(images), losses)["delta"] > 0 and trainer.encoder.stage == 1
    assert not torch.equal(before[0], heads["0.linear.weight"])
    assert not torch.equal(before[1], heads["1.linear.weight"])
    assert torch.equal(before[2], heads["2.linear.weight"])  # added at a later step
    w = trainer.ema(images)
    assert torch.equal(w[:, 2:], w[:, :1].expand(-1, 8, -1))


def test_image_terms_are_zero_for_the_generators_own_images(
    generator: StyleGAN2, losses: ImageLosses
) -> None:
    w = generator.w_avg + torch.randn(2, 10, 16)
    terms = losses(w, generator.synthesis(w), TRAIN)
    for name in ("pixel", "perceptual", "identity"):
        assert terms[name].item() == pytest.approx(0, abs=1e-6), name
    different = losses(w + 1, generator.synthesis(w), TRAIN)
    difference = (
        (generator.synthesis(w + 1) - generator.synthesis(w)).unflatten(3, (32, 2)).unflatten(2, (32, 2))
    )
    assert different["pixel"].item() == pytest.approx(
        difference.mean((3, 5)).square().mean().item(), rel=1e-4
    )


def run(
    trainer: EncoderTrainer, generator: StyleGAN2, losses: ImageLosses, folder: Path, stop: int = 6
) -> None:
    draw = photo_batches(GeneratorSamples(generator, 3, 0), 32)

    def validate(encoder: torch.nn.Module) -> dict[str, float]:
        return mean_image_losses(encoder, losses, held_batches(draw, 3, 3), trainer.config)

    for step, figures in trainer.train(draw, validate, losses, folder):
        assert ("val/pixel" in figures) == (step % 3 == 0)
        if step == stop:
            break


def test_a_resumed_training_of_the_full_encoder_equals_an_uninterrupted_one(
    generator: StyleGAN2, losses: ImageLosses, tmp_path
) -> None:
    uninterrupted = new_trainer()
    run(uninterrupted, generator, losses, tmp_path / "whole")
    run(new_trainer(), generator, losses, tmp_path / "parts", stop=3)
    parts = new_trainer()
    parts.load(tmp_path / "parts" / "checkpoint.pt")
    assert parts.step == 3 and parts.encoder.stage == 1
    torch.manual_seed(99)  # the global random state has no influence
    run(parts, generator, losses, tmp_path / "parts")
    for a, b in zip(uninterrupted.ema.state_dict().values(), parts.ema.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert uninterrupted.adversary is not None and parts.adversary is not None
    for a, b in zip(uninterrupted.adversary.pool.rows, parts.adversary.pool.rows, strict=True):
        assert torch.equal(a, b)
    plain = new_trainer(dataclasses.replace(TRAIN, adversary=AdversaryConfig()))
    with pytest.raises(TrainingError, match="adversary"):
        plain.load(tmp_path / "parts" / "checkpoint.pt")
    faster = new_trainer(dataclasses.replace(TRAIN, lr=2 * TRAIN.lr, steps=99))
    with pytest.raises(TrainingError, match=f"lr was {TRAIN.lr}, is {2 * TRAIN.lr}"):
        faster.load(tmp_path / "parts" / "checkpoint.pt")
    longer = new_trainer(dataclasses.replace(TRAIN, steps=99))
    longer.load(tmp_path / "parts" / "checkpoint.pt")
    assert longer.step == 6


def train_compact(
    generator: StyleGAN2, pairs: FolderPairs, folder: Path, stop: int, resume: bool
) -> torch.nn.Module:
    config = EncoderTrainConfig(
        steps=6, batch=6, pixel_weight=1.0, perceptual_weight=1.0, landmark_weight=0.1, validation=4, save_every=3
    )  # fmt: skip
    torch.manual_seed(1)
    encoder = CompactE4E(dataclasses.replace(SMALL_COMPACT, num_rows=10), generator.w_avg)
    trainer = EncoderTrainer(encoder, config, seed=0)
    if resume:
        trainer.load(folder / "checkpoint.pt")
    torch.manual_seed(2)
    losses = ImageLosses(generator, squared_error, LandmarkNet(8).requires_grad_(False))
    batches = PairBatches(pairs, pairs, 3, config.batch, config.group_share, 4, encoder.side, trainer.rng)
    for step, figures in trainer.train(batches, batches.validate, losses, folder):
        assert all(np.isfinite(value) for value in figures.values())
        if step == stop:
            break
    return trainer.ema


def test_a_resumed_training_on_pairs_equals_an_uninterrupted_one(generator: StyleGAN2, tmp_path) -> None:
    codes = draw_codes(generator, 24, np.random.default_rng(0))
    write_pairs(tmp_path / "pairs", 0, to_uint8(generator.synthesis(codes).clamp(-1, 1)), codes.numpy())
    pairs = FolderPairs(tmp_path / "pairs")
    uninterrupted = train_compact(generator, pairs, tmp_path / "whole", 6, resume=False)
    train_compact(generator, pairs, tmp_path / "parts", 3, resume=False)
    parts = train_compact(generator, pairs, tmp_path / "parts", 6, resume=True)
    for a, b in zip(uninterrupted.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_creates_no_tensor_on_the_default_device(generator: StyleGAN2, losses: ImageLosses) -> None:
    """A tensor created without a device would be on the default device, which here differs from the networks'
    device.
    """
    trainer = new_trainer(dataclasses.replace(TRAIN, augment=True))
    images = GeneratorSamples(generator, 3, 0)(0)[0]
    trainer.train_step(EncoderBatch(images), losses)  # Adam creates its counters in the first step
    trainer.train_step(EncoderBatch(images), losses)
    codes = torch.randn(3, 10, 16)
    with torch.device("meta"):
        trainer.train_step(EncoderBatch(images), losses)
        terms = trainer.train_step(EncoderBatch(images, codes, 3, 3), losses)
    assert all(np.isfinite(list(terms.values()))) and "displacement" in terms


def test_divergence_is_reported(generator: StyleGAN2, losses: ImageLosses, tmp_path) -> None:
    broken = dataclasses.replace(losses, perceptual=lambda x, y: x.sum((1, 2, 3)) * float("nan"))
    with pytest.raises(TrainingError, match="diverged at step 1"):
        run(new_trainer(), generator, broken, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_finite_loss_with_a_broken_gradient_is_not_saved(generator, losses, tmp_path) -> None:
    steep = dataclasses.replace(losses, perceptual=lambda x, y: (x - x).abs().sum((1, 2, 3)).sqrt())
    with pytest.raises(TrainingError, match="diverged at step 1"):
        run(new_trainer(dataclasses.replace(TRAIN, save_every=1)), generator, steep, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_backbone_starts_from_the_recognition_network(losses: ImageLosses, tmp_path) -> None:
    identity = losses.identity
    assert identity is not None
    save_weights(identity, tmp_path / "id.safetensors", IdentityNet.kind, identity.config)
    loaded = load_identity(tmp_path / "id.safetensors")
    x = torch.rand(1, 3, 256, 256)
    assert torch.equal(loaded(x), identity(x))
    encoder = FullEncoder(NET)
    start_backbone(encoder, loaded, "id.safetensors")
    x = torch.rand(1, 3, 32, 32)
    features = encoder.eval().body(encoder.input_layer(x))
    assert torch.equal(features, identity.body(identity.input_layer(x)))
    with pytest.raises(WeightsError, match="other sizes"):
        start_backbone(FullEncoder(dataclasses.replace(NET, depths=(1, 1, 2, 1))), loaded, "id.safetensors")


def call_script(tmp_path: Path, *more: str) -> tuple[int, Path]:
    folders = [f"results_dir={tmp_path / 'results'}", f"data_dir={tmp_path / 'data'}", "name=smoke"]
    code = runtime.attempt(train_encoder, runtime.compose(["experiment=e4e_ffhq_smoke", *folders, *more]))
    return code, tmp_path / "results" / "smoke" / "encoder"


def test_the_smoke_experiment_runs(tmp_path, capsys) -> None:
    """On samples of the embedded generator."""
    code, folder = call_script(tmp_path, "encoder_train.steps=2")
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "val/pixel" in out and "adversarial" in out
    encoder = load_encoder(folder / "encoder.safetensors")
    assert isinstance(encoder, FullEncoder) and encoder.num_rows == 14
    assert encoder.stage == 1  # the stage at which training stopped
    assert "encoder" in json.loads((folder / "run.json").read_text())["weights"]


@pytest.mark.slow
def test_the_smoke_experiment_runs_on_photographs_with_the_identity_term(tmp_path, capsys) -> None:
    identity = IdentityNet(BackboneConfig((8, 8, 8, 16, 16), (1, 1, 2, 1)), 8)
    save_weights(identity, tmp_path / "id.safetensors", IdentityNet.kind, identity.config)
    photos = write_pictures(tmp_path / "my [faces], a=b", 5)
    more = [
        "encoder_train.source=photos",
        f"encoder_train.images={photos}",
        "encoder_train.identity_weight=0.1",
    ]
    code, folder = call_script(tmp_path, *more, f"encoder_train.identity={tmp_path / 'id.safetensors'}")
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "identity" in out and (folder / "encoder.safetensors").is_file()


def test_a_warm_start_from_another_kind_of_encoder_is_refused(tmp_path, capsys) -> None:
    code, folder = call_script(tmp_path, "encoder_train.warm_start=true")
    assert code == 1 and "compact_e4e" in capsys.readouterr().err
    assert not (folder / "encoder.safetensors").exists()
