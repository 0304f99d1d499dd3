"""Pivotal tuning on a small generator: it fits the frames, is repeatable, leaves the original unchanged, and reports
errors.
"""

import copy
from typing import Any

import pytest
import torch
from small_likeness import SMALL_LIKENESS
from torch import nn

from stylegan2.images import to_uint8
from stylegan2.networks.generator import StyleGAN2
from tuning.pivotal import TIMED, PivotalConfig, TuningError, relative_size, tune, uniform_frames
from tuning.pivotal_losses import l2, nearby, perceptual_at

L, D, SIZE = 4, 6, 16


class Toy(nn.Module):
    """A minimal generator of the protocol: rows of W+ -> features -> image."""

    num_rows, w_dim, resolution = L, D, SIZE

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(D, D)
        self.block = nn.Linear(L * D, 8 * 4 * 4)
        self.head = nn.Conv2d(8, 3, 3, padding=1)
        self.register_buffer("w_avg", torch.zeros(D))

    def mapping(self, z):
        return self.map(z)

    def synthesis(self, w, noise="const"):
        assert noise == "const"
        x = self.block(w.flatten(1)).view(-1, 8, 4, 4)
        return torch.tanh(self.head(nn.functional.interpolate(x, scale_factor=SIZE / 4)))


class L1(nn.Module):
    name = "toy"

    def forward(self, x, y):
        return (x - y).abs().flatten(1).mean(dim=1)


@pytest.fixture
def scene():
    torch.manual_seed(0)
    generator = Toy().eval().requires_grad_(False)
    pivots = torch.randn(5, L, D)
    images = to_uint8(torch.rand(5, 3, 1, 1).mul(1.6).sub(0.8).expand(-1, -1, SIZE, SIZE))
    return generator, pivots, images


def run(scene, **options):
    generator, pivots, images = scene
    extra = {key: options.pop(key) for key in ("likeness",) if key in options}
    config = PivotalConfig(**{"lr": 1e-2, "steps": 60} | options)
    points = torch.zeros(len(images), 68, 2)
    return tune(generator, pivots, images, points, L1(), config, progress=False, **extra)


def test_tuning_fits_the_frames_and_keeps_the_original(scene):
    old = copy.deepcopy(scene[0].state_dict())
    result = run(scene)
    assert result.after["l2"] < 0.5 * result.before["l2"]
    assert result.after["perceptual"] < 0.8 * result.before["perceptual"]
    assert len(result.steps) == 60 and result.stopped == "steps"
    assert all(torch.equal(old[name], value) for name, value in scene[0].state_dict().items())
    assert not any(p.requires_grad for p in result.generator.parameters())


def test_activation_checkpointing_makes_the_same_generator(scene):
    torch.manual_seed(0)
    generator = StyleGAN2(8, z_dim=D, w_dim=D, channels={4: 8, 8: 8}).eval().requires_grad_(False)
    images = to_uint8(torch.rand(5, 3, 8, 8).mul(2).sub(1))
    plain, checkpointed = (
        run((generator, scene[1], images), steps=5, activation_checkpointing=on).generator
        for on in (False, True)
    )
    assert not checkpointed.synthesis.recompute
    for a, b in zip(checkpointed.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_mapping_network_is_not_changed(scene):
    new, old = run(scene, locality_weight=0.1).generator.state_dict(), scene[0].state_dict()
    changed = {name for name in old if not torch.equal(new[name], old[name])}
    assert changed == {"block.weight", "block.bias", "head.weight", "head.bias"}


def test_only_the_named_layers_change(scene):
    new, old = run(scene, train=["head.*"]).generator.state_dict(), scene[0].state_dict()
    assert {name for name in old if not torch.equal(new[name], old[name])} == {"head.weight", "head.bias"}
    with pytest.raises(TuningError, match="no_such"):
        run(scene, train=["no_such.*"])
    with pytest.raises(TuningError, match=r"\['map.\*'\] names nothing that the images depend on"):
        run(scene, train=["map.*"])


def test_repeatable_at_a_seed(scene):
    a, b, c = run(scene, seed=1), run(scene, seed=1), run(scene, seed=2)
    assert a.steps == b.steps and a.steps != c.steps
    assert all(
        torch.equal(x, y) for x, y in zip(a.generator.parameters(), b.generator.parameters(), strict=True)
    )


def test_stops_at_the_threshold_of_its_own_metric(scene):
    start = run(scene, steps=1).before["perceptual"]
    result = run(scene, steps=500, threshold={"toy": 0.7 * start})
    assert result.stopped == "threshold" and len(result.steps) < 500
    without_threshold = run(scene, steps=20, threshold={"lpips-alex": 10.0, "toy": None})
    assert without_threshold.stopped == "steps"


def test_frames_are_chosen_at_even_distances(scene):
    assert uniform_frames(10, 4) == [0, 3, 6, 9]
    assert uniform_frames(3, 32) == [0, 1, 2]
    result = run(scene, max_frames=3)
    assert result.chosen == [0, 2, 4]
    assert torch.equal(result.pivots, scene[1][[0, 2, 4]])


def test_larger_batches_and_smaller_images(scene):
    generator, pivots, images = scene
    result = run((generator, pivots, images[:, ::2, ::2].copy()), batch=3, perceptual_size=4)
    assert result.after["l2"] < result.before["l2"]


def test_divergence_is_reported_in_one_sentence(scene, monkeypatch):
    distance, calls = L1.forward, []

    def nan_in_the_third_step(self, x, y):
        if x.requires_grad:
            calls.append(x)
        return distance(self, x, y) * (float("nan") if len(calls) == 3 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(L1, "forward", nan_in_the_third_step)
        with pytest.raises(TuningError, match=r"step 2 .*lower tuning\.lr"):
            run(scene)
    broken = copy.deepcopy(scene[0])
    broken.head.bias.fill_(float("nan"))
    with pytest.raises(TuningError, match="step 0"):
        run((broken, *scene[1:]))


def test_wrong_shapes_and_configs_are_refused(scene):
    generator, pivots, images = scene
    with pytest.raises(TuningError, match=r"5 images need pivots \(5, 4, 6\)"):
        run((generator, pivots[:2], images))
    with pytest.raises(TuningError, match=r"tuning\.loss=pti"):
        run(scene, loss="likeness")
    cases: list[dict[str, Any]] = [
        {"steps": 0},
        {"lr": -1.0},
        {"lpips_weight": -1.0},
        {"identity_weight": -1.0},
        {"seconds": 0.0},
        {"l2_weight": 0.0, "lpips_weight": 0.0},
    ]
    for bad in cases:
        with pytest.raises(ValueError, match="tuning"):
            PivotalConfig(**bad)


def test_losses_of_equal_images_are_zero(scene):
    generator, pivots, _ = scene
    image = generator.synthesis(pivots)
    assert l2(image, image).abs().max() == 0
    assert perceptual_at(L1(), image, image, 8).abs().max() == 0


def test_locality_samples_lie_at_distance_alpha(scene):
    generator, pivots, _ = scene
    near = nearby(generator, pivots, 3.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close((near - pivots).flatten(1).norm(dim=1), torch.full((5,), 3.0))
    z = torch.randn(5, D, generator=torch.Generator().manual_seed(0))
    towards = generator.mapping(z)[:, None].expand(-1, L, -1) - pivots
    torch.testing.assert_close(
        torch.cosine_similarity(*(x.flatten(1) for x in (near - pivots, towards))), torch.ones(5)
    )


def test_locality_preserves_images_of_other_latents(scene):
    generator, pivots, _ = scene
    near = nearby(generator, pivots, 3.0, torch.Generator().manual_seed(9))

    def drift(result):
        return l2(result.generator.synthesis(near), generator.synthesis(near)).mean()

    regularised = run(scene, locality_weight=10.0, locality_alpha=3.0)
    assert drift(regularised) < 0.5 * drift(run(scene))
    assert regularised.after["l2"] < regularised.before["l2"] and "locality" in regularised.steps[0]


def test_the_likeness_loss_fits_the_frames_in_alternating_views(scene):
    result = run(scene, loss="likeness", likeness=SMALL_LIKENESS)
    assert result.after["l2"] < 0.7 * result.before["l2"]
    views = [{name for name in step if name.startswith("perceptual_")} for step in result.steps]
    assert views[:3] == [{"perceptual_whole"}, {"perceptual_inner"}, {"perceptual_whole"}]
    assert all("identity" in step for step in result.steps)


def test_as_many_steps_are_made_as_there_is_time_for(scene):
    limited = run(scene, steps=100_000, seconds=0.3)
    assert limited.stopped == "seconds" and TIMED <= len(limited.steps) < 100_000
    assert run(scene, steps=20, seconds=1000.0).stopped == "steps"


def test_a_tiny_stylegan2_is_tuned_and_comes_back_from_disk(tmp_path):
    from stylegan2.networks.generator import StyleGAN2
    from tuning.tuned_weights import load_tuned, save_tuned

    torch.manual_seed(0)
    base = (
        StyleGAN2(16, z_dim=8, w_dim=8, channels={4: 8, 8: 8, 16: 8}, mapping_layers=2)
        .eval()
        .requires_grad_(False)
    )
    pivots = torch.randn(2, base.num_rows, 8)
    images = to_uint8(torch.rand(2, 3, 16, 16).sub(0.5))
    result = tune(
        base, pivots, images, torch.zeros(2, 68, 2), L1(), PivotalConfig(lr=5e-3, steps=30), progress=False
    )
    assert result.after["l2"] < 0.8 * result.before["l2"]
    changed = {
        name
        for name, value in result.generator.state_dict().items()
        if not value.equal(base.state_dict()[name])
    }
    assert changed and all(name.startswith("synthesis.") for name in changed)
    save_tuned(tmp_path / "tuned.safetensors", result.generator, base, result.pivots, "ab" * 32)
    loaded = load_tuned(tmp_path / "tuned.safetensors", base, "ab" * 32)
    torch.testing.assert_close(
        loaded.synthesis(pivots), result.generator.synthesis(pivots), atol=2e-3, rtol=0
    )


def test_steps_are_relative_to_a_tensors_size() -> None:
    torch.manual_seed(0)
    unit = torch.randn(64, 64)
    assert relative_size(unit).item() == pytest.approx(1.0, abs=0.02)
    assert relative_size(0.05 * unit).item() == pytest.approx(0.05, rel=0.02)
    assert relative_size(30 * unit).item() == 1.0
    assert relative_size(torch.zeros(3)).item() == pytest.approx(0.01)
