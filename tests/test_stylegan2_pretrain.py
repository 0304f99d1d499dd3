"""stylegan2.pretrain: losses against closed forms; both kinds of training run, resume exactly and learn."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan2.generator import StyleGAN2
from stylegan2.mobile import MobileStyleGAN
from stylegan2.objectives import (
    discriminator_loss,
    generator_loss,
    mix_styles,
    path_length_penalty,
    r1_penalty,
)
from stylegan2.pretrain import PretrainConfig, build_networks, lazy_adam, pretrain
from stylegan2.protocol import sample_w
from stylegan2.sources import ImageFolder, Teacher, copy_mapping
from stylegan2.weights import WeightsError, load_generator, read_weights

SMALL = PretrainConfig(
    resolution=32, channel_base=128, channel_max=8, z_dim=16, w_dim=16, mapping_layers=2, batch=4, steps=6,
    r1_every=2, path_every=2, path_weight=2.0, save_every=3, log_every=1, half=False,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Seven pictures of odd sizes: two colours with a soft edge, at several brightnesses."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i in range(7):
        picture = random.integers(0, 255, (1, 2, 3)).astype(np.uint8)
        Image.fromarray(picture).resize((40 + i, 50), Image.Resampling.BILINEAR).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(7)
    made = StyleGAN2(32, z_dim=16, w_dim=16, channels={4: 8, 8: 8, 16: 8, 32: 4}, mapping_layers=2)
    made.mapping.estimate_w_avg(1000)
    return made.eval().requires_grad_(False)


def adversarial(images, folder, config=SMALL, **options):
    generator, discriminator = build_networks(config)
    source = ImageFolder(images, config.resolution, config.batch, config.seed)
    return pretrain(generator, discriminator, source, config, folder, progress=False, **options)


def distil(teacher, folder, config, **options):
    student, discriminator = build_networks(config, teacher)
    source = Teacher(teacher, student, config.batch, config.seed)
    return pretrain(student, discriminator, source, config, folder, progress=False, **options)


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


# objectives


def test_logistic_losses():
    zero, large = torch.zeros(4, 1), torch.full((4, 1), 50.0)
    assert generator_loss(zero).item() == pytest.approx(np.log(2))
    assert generator_loss(large).item() == pytest.approx(0, abs=1e-6)
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * np.log(2))
    assert discriminator_loss(large, -large).item() == pytest.approx(0, abs=1e-6)


def test_r1_of_a_linear_score_is_its_squared_slope():
    slope = torch.randn(3, 8, 8)
    score = lambda x: (x * slope).sum((1, 2, 3))  # noqa: E731
    assert r1_penalty(score, torch.randn(5, 3, 8, 8)).item() == pytest.approx(
        slope.square().sum().item(), rel=1e-5
    )


def test_path_length_of_a_linear_generator():
    """g(w) = a w_0 everywhere: J^T y is a sum(y) along w_0, and sum(y) is standard normal."""

    def synthesis(w, noise):
        return (3.0 * w[:, 0, 0])[:, None, None, None].expand(-1, 1, 8, 8)

    torch.manual_seed(0)
    penalty, mean = path_length_penalty(synthesis, torch.zeros(4000, 1, 2), torch.zeros(()), decay=1.0)
    assert mean.item() == pytest.approx(3 * np.sqrt(2 / np.pi), rel=0.05)  # mean of |normal|
    assert penalty.item() == pytest.approx(9 * (1 - 2 / np.pi), rel=0.1)  # its variance


def test_style_mixing_crosses_once():
    w, other = torch.zeros(200, 1), torch.ones(200, 1)
    mixed = mix_styles(w, other, 8, probability=0.5)[:, :, 0]
    assert (mixed[:, 0] == 0).all() and (mixed.diff(dim=1) >= 0).all()
    assert 60 < (mixed[:, -1] == 1).sum() < 140
    assert mix_styles(w, other, 8, 0.0).sum() == 0 and (mix_styles(w, other, 8, 1.0)[:, -1] == 1).all()


def test_lazy_rates():
    optimiser = lazy_adam(torch.nn.Linear(1, 1), lr=0.002, every=16)
    group = optimiser.param_groups[0]
    assert group["lr"] == pytest.approx(0.002 * 16 / 17)
    assert group["betas"] == pytest.approx((0, 0.99 ** (16 / 17)))


# sources


def test_image_folder_shows_everything_once_an_epoch_whatever_step_comes_first(images):
    source = ImageFolder(images, 16, batch=3, seed=1)
    seen = [index for step in range(7) for index, _ in source.choice(step)]
    assert sorted(seen) == sorted(list(range(7)) * 3)
    batches = [source(step)[0] for step in range(4)]
    assert batches[0].shape == (3, 3, 16, 16) and torch.equal(ImageFolder(images, 16, 3, 1)(3)[0], batches[3])


def test_image_folder_names_what_it_cannot_use(tmp_path):
    with pytest.raises(FileNotFoundError, match="no images"):
        ImageFolder(tmp_path, 16, 1)
    (tmp_path / "broken.png").write_text("not a picture")
    with pytest.raises(OSError, match=r"broken\.png"):
        ImageFolder(tmp_path, 16, 1)(0)


def test_students_share_the_teachers_w(teacher):
    student, _ = build_networks(SMALL, teacher)
    z = torch.randn(3, 16)
    assert torch.equal(student.mapping(z), teacher.mapping(z)) and torch.equal(student.w_avg, teacher.w_avg)
    mobile = MobileStyleGAN(64).eval()
    for layer in mobile.map.layers:
        torch.nn.init.normal_(layer.bias)  # type: ignore[arg-type]
    heir = StyleGAN2(64, channels={4: 4, 8: 4, 16: 4, 32: 4, 64: 4})
    copy_mapping(mobile, heir)
    z = torch.randn(3, 512)
    assert torch.allclose(heir.mapping(z), mobile.mapping(z), atol=1e-4)
    with pytest.raises(WeightsError, match="teacher"):
        Teacher(teacher, heir, 1)


def test_a_larger_teacher_is_averaged_down(teacher):
    student, _ = build_networks(dataclasses.replace(SMALL, resolution=16), teacher)
    target, w = Teacher(teacher, student, batch=2)(0)
    assert target.shape == (2, 3, 16, 16) and w.shape == (2, 6, 16)
    rows = torch.cat([w, w[:, -1:], w[:, -1:]], 1)
    expected = teacher.synthesis(rows).unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean((3, 5)).clamp(-1, 1)
    assert torch.allclose(target, expected, atol=1e-5)


# training


def test_adversarial_training_runs_and_resumes_bit_for_bit(images, tmp_path):
    history = []
    whole = adversarial(images, tmp_path / "whole", log=lambda step, values: history.append((step, values)))
    assert [step for step, _ in history] == [1, 2, 3, 4, 5, 6]
    assert {"adversarial", "discriminator", "path", "r1"} <= history[0][1].keys()
    assert all(np.isfinite(value) for _, values in history for value in values.values())

    adversarial(images, tmp_path / "parts", stop_at=4)
    torch.manual_seed(999)  # what happened in between does not matter
    resumed = adversarial(images, tmp_path / "parts")
    assert same(whole, resumed)
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))
    assert a["step"] == b["step"] == 6
    assert all(torch.equal(a["discriminator"][k], b["discriminator"][k]) for k in a["discriminator"])
    assert not torch.equal(whole.w_avg, torch.zeros(16))

    saved = load_generator(tmp_path / "whole" / "generator.safetensors")
    assert same(saved, whole)
    assert read_weights(tmp_path / "whole" / "generator.safetensors").notes["images"] == 24
    assert Image.open(tmp_path / "whole" / "samples.png").size == (8 * 32, 32)


def test_distillation_learns_the_teacher(teacher, tmp_path):
    config = dataclasses.replace(
        SMALL,
        steps=60,
        adversarial_weight=0.0,
        path_weight=0.0,
        channel_max=16,
        lr=0.01,
        ema_images=40,
        save_every=60,
    )
    history = []
    perceptual = lambda x, y: (x - y).square().mean((1, 2, 3))  # noqa: E731
    student = distil(
        teacher, tmp_path, config, perceptual=perceptual, log=lambda _, values: history.append(values)
    )
    assert history[0].keys() == {"pixel", "perceptual"}
    first, last = (np.mean([values["pixel"] for values in part]) for part in (history[:5], history[-5:]))
    assert last < 0.8 * first
    z = torch.randn(2, 16)
    assert torch.equal(student.mapping(z), teacher.mapping(z))  # W is never trained away
    w = sample_w(teacher, 8, seed=3, psi=0.7)
    fresh, _ = build_networks(config, teacher)
    target = teacher.synthesis(w).clamp(-1, 1)
    with torch.no_grad():
        assert (student.synthesis(w) - target).abs().mean() < 0.8 * (fresh.synthesis(w) - target).abs().mean()
    assert Image.open(tmp_path / "samples.png").size == (4 * 32, 2 * 32)


def test_distillation_with_a_discriminator_that_starts_late(teacher, tmp_path):
    config = dataclasses.replace(SMALL, adversarial_start=2, path_weight=0.0, precision="bfloat16", steps=4)
    history = []
    distil(teacher, tmp_path, config, log=lambda _, values: history.append(values))
    assert (
        "discriminator" not in history[1]
        and {"pixel", "adversarial", "discriminator", "r1"} <= history[2].keys()
    )
    assert all(np.isfinite(value) for values in history for value in values.values())


def test_out_of_time_stops_with_everything_saved(teacher, tmp_path):
    config = dataclasses.replace(SMALL, adversarial_weight=0.0, path_weight=0.0, minutes=0.0)
    distil(teacher, tmp_path, config)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1
    assert (tmp_path / "generator.safetensors").is_file()


def test_resuming_another_run_or_a_broken_file_is_refused(teacher, tmp_path):
    config = dataclasses.replace(SMALL, adversarial_weight=0.0, path_weight=0.0, steps=1)
    distil(teacher, tmp_path, config)
    with pytest.raises(WeightsError, match=r"lr was 0\.002, is 0\.1"):
        distil(teacher, tmp_path, dataclasses.replace(config, lr=0.1))
    with pytest.raises(WeightsError, match="no checkpoint"):
        distil(teacher, tmp_path, config, resume=tmp_path / "absent.pt")
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cut short"):
        distil(teacher, tmp_path, config)


def test_divergence_is_reported_and_the_state_kept(teacher, tmp_path):
    config = dataclasses.replace(SMALL, adversarial_weight=0.0, path_weight=0.0)
    broken = lambda x, y: x.sum((1, 2, 3)) * float("nan")  # noqa: E731
    with pytest.raises(WeightsError, match=r"diverged at step 1 \(perceptual"):
        distil(teacher, tmp_path, config, perceptual=broken)
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"lr": 0.0},
        {"precision": "fp8"},
        {"resolution": 100},
        {"images": "x", "adversarial_weight": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(change):
    with pytest.raises(ValueError):
        PretrainConfig(**change)
