"""Checks on a CUDA device: the networks compute the same as on the CPU, and every training step runs.

Run with `pytest -m gpu`. Tolerances are those of float32 convolutions (TF32 off); half precision may differ by 3 %.
"""

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from toy_stage1 import FEATURES, parts

from encoders.bases.viseme_basis import load_viseme_basis
from encoders.features.landmark_net import load_landmark_net
from encoders.features.perceptual import load_perceptual
from encoders.networks.e4e_compact import CompactE4E, CompactE4EConfig, load_encoder
from encoders.training.encoder_config import EncoderTrainConfig
from encoders.training.encoder_data import LivePairs
from encoders.training.encoder_losses import ImageLosses
from encoders.training.encoder_trainer import EncoderTrainer
from stylegan2.images import to_uint8
from stylegan2.load import load_generator
from stylegan2.networks.discriminator import Discriminator
from stylegan2.networks.generator import StyleGAN2
from stylegan2.protocol import sample_w
from trajectory.data.augmentation import AugmentConfig
from trajectory.training.amplitude_calibration import validate
from trajectory.training.stage1_loop import train
from tuning.pivotal import PivotalConfig, tune

CUDA = torch.device("cuda")

pytestmark = pytest.mark.gpu


def assert_close(cuda, cpu, atol=2e-3):
    torch.testing.assert_close(cuda.cpu(), cpu, atol=atol, rtol=1e-3)


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def generators():
    torch.manual_seed(0)
    small = StyleGAN2(64, channels=dict.fromkeys((4, 8, 16, 32, 64), 32), mapping_layers=2)
    for name, parameter in small.named_parameters():
        if name.endswith("noise_strength"):  # visible noise
            torch.nn.init.constant_(parameter, 0.1)
    return {"stylegan2": small.eval().requires_grad_(False), "embedded": load_generator("embedded")}


@pytest.mark.parametrize("name", ["stylegan2", "embedded"])
def test_image_and_gradient_are_those_of_the_cpu(name):
    generator = generators()[name]
    results = []
    for device in ("cpu", CUDA):
        generator = generator.to(device)
        w = sample_w(generator, 2, seed=1, psi=0.7).requires_grad_(True)
        image = generator.synthesis(w)
        shading = torch.linspace(-1, 1, image.shape[-1], device=device)
        (gradient,) = torch.autograd.grad((image * shading).mean() * 1e3, w)
        results.append((w.detach().cpu(), image.detach().cpu(), gradient.cpu()))
    for cpu, cuda in zip(*results, strict=True):
        assert_close(cuda, cpu)


@pytest.mark.parametrize("name", ["stylegan2", "embedded"])
def test_half_precision_stays_near(name):
    generator = generators()[name].to(CUDA)
    w = sample_w(generator, 4, seed=2, psi=0.7)
    exact = generator.synthesis(w)
    generator.compute_in(torch.bfloat16)
    half = generator.synthesis(w)
    assert half.dtype == torch.float32
    assert ((half - exact).abs().mean() / exact.abs().mean()).item() < 0.03


def test_encoder_landmarks_and_perceptual_distance_are_those_of_the_cpu():
    generator = load_generator("embedded").to(CUDA)
    images = generator.synthesis(sample_w(generator, 2, seed=3, psi=0.7)).clamp(-1, 1)
    encoder, landmarks, alex = load_encoder("embedded"), load_landmark_net(), load_perceptual("alex")
    here = encoder(images.cpu()), landmarks(images.cpu()), alex(images[:1].cpu(), images[1:].cpu())
    for net in (encoder, landmarks, alex):
        net.to(CUDA)
    there = encoder(images), landmarks(images), alex(images[:1], images[1:])
    for cpu, cuda in zip(here, there, strict=True):
        assert_close(cuda, cpu, atol=2e-2)  # landmarks are in px


def test_the_discriminator_has_second_derivatives():
    net, image = Discriminator(32, dict.fromkeys((4, 8, 16, 32), 16)), torch.randn(4, 3, 32, 32)
    results = []
    for device in ("cpu", CUDA):
        net = net.to(device)
        net.zero_grad()
        real = image.to(device).requires_grad_(True)
        (gradient,) = torch.autograd.grad(net(real).sum(), real, create_graph=True)
        gradient.square().sum().backward()
        results.append(torch.cat([p.grad.flatten().cpu() for p in net.parameters() if p.grad is not None]))
    assert_close(results[1], results[0])


def test_live_pairs_are_those_of_the_cpu():
    directions = torch.from_numpy(load_viseme_basis().directions)
    batches = []
    for device in ("cpu", CUDA):
        generator = load_generator("embedded", device)
        batches.append(LivePairs(generator, directions.to(device), 3, 6, 0.5, 2, 128, seed=4)(step=9))
    cpu, cuda = batches
    assert cuda.images.device.type == "cuda" and cuda.in_groups == 3
    assert_close(cuda.codes, cpu.codes)
    assert_close(cuda.images, cpu.images)


def test_an_encoder_learns_from_codes_and_images(tmp_path):
    generator = load_generator("embedded", CUDA)
    generator.compute_in(torch.bfloat16)
    directions = torch.from_numpy(load_viseme_basis().directions).to(CUDA)
    torch.manual_seed(0)
    encoder = CompactE4E(CompactE4EConfig(hidden=64), generator.w_avg.cpu()).to(CUDA)
    config = EncoderTrainConfig(
        source="live", steps=60, batch=16, image_batch=4, image_size=128, pixel_weight=1.0, perceptual_weight=1.0,
        landmark_weight=0.02, bf16=True, validation=16, save_every=60,
    )  # fmt: skip
    image_losses = ImageLosses(generator, load_perceptual("alex").to(CUDA), load_landmark_net().to(CUDA))
    pairs = LivePairs(generator, directions, 3, 16, 0.4, 16, 128, seed=0)
    trainer = EncoderTrainer(encoder, config, seed=0)
    steps = trainer.train(pairs, pairs.validate, image_losses, tmp_path)
    latent = [figures["latent"] for _, figures in steps]
    assert np.mean(latent[-10:]) < np.mean(latent[5:15])


def test_stage_1_trains_and_validates(tmp_path):
    fabric = Fabric(accelerator="cuda", devices=1)
    changes = {"steps": 150, "val_every": 50, "save_every": 150, "lr": 1e-2, "ema": 0.95}
    pieces = parts(tmp_path, **changes)
    pieces["sampler"].augmentation = AugmentConfig(warp=0, gain=0, tilt=0, noise=0)
    model = train(**pieces, folder=tmp_path / "run", fabric=fabric)
    clip = pieces["sampler"].clips[0]
    assert validate(model.net, pieces["space"].to(CUDA), FEATURES, [clip]).score > 0.9


def test_pivotal_tuning_fits():
    generator = load_generator("embedded", CUDA)
    w = sample_w(generator, 3, seed=5, psi=0.7)
    frames = to_uint8(generator.synthesis(w + 0.05 * torch.randn_like(w)))
    config = PivotalConfig(steps=30)
    teacher = load_perceptual("alex").to(CUDA)
    result = tune(generator, w, frames, np.zeros((3, 68, 2)), teacher, config, progress=False)
    assert result.after["l2"] < 0.8 * result.before["l2"]
    assert next(result.generator.parameters()).device.type == "cuda"
