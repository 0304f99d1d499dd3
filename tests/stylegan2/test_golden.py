"""Generator and discriminator against outputs of the public reference implementation (tests/golden).

A rule fills the networks with numbers, so that no weights need to be stored.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nvidia_pickles import recorded, write_snapshot

from stylegan2.public.checkpoints import read_public_checkpoint
from stylegan2.public.rosinality import (
    discriminator_from_rosinality,
    discriminator_to_rosinality,
    generator_from_rosinality,
    generator_to_rosinality,
)

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4


def fill(rule):
    """Row [key, shape, i, scale, shift] -> PCG64(seed + i) standard normal * scale + shift, in float32."""
    state = {}
    for key, shape, i, scale, shift in rule["rows"]:
        random = np.random.Generator(np.random.PCG64(rule["seed"] + i))
        values = random.standard_normal(shape).astype(np.float32)
        state[key] = torch.from_numpy(values * np.float32(scale) + np.float32(shift))
    return state


@pytest.fixture(scope="module")
def rules():
    return json.loads((GOLDEN / "stylegan2_64.json").read_text())


@pytest.fixture(scope="module")
def expected():
    with np.load(GOLDEN / "stylegan2_64.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


@pytest.fixture(scope="module")
def generator_state(rules):
    return fill(rules["generator"])


@pytest.fixture(scope="module")
def generator(generator_state):
    return generator_from_rosinality(generator_state, latent_avg=torch.zeros(512)).eval()


@torch.no_grad()
def test_mapping_and_synthesis_reproduce_the_reference(generator, expected):
    w = generator.mapping(expected["z"])
    assert torch.allclose(w, expected["w"], rtol=0, atol=TOLERANCE)
    repeated = expected["w"][:, None].expand(-1, generator.num_rows, -1)
    for latents, image in ((repeated, "image_w"), (expected["wp"], "image_wp")):
        result = generator.synthesis(latents, noise="const")
        assert torch.allclose(result, expected[image], rtol=0, atol=TOLERANCE), image


@torch.no_grad()
def test_nvidias_pickle_keeps_the_reference_weights(generator, expected, tmp_path):
    """A snapshot as written by NVIDIA gives bit-equal tensors, so the test above holds for its images too."""
    path = write_snapshot(tmp_path / "snapshot.pkl", G_ema=recorded(generator, "Generator"))
    again = read_public_checkpoint(path).build("g_ema")
    state, read_state = generator.state_dict(), again.state_dict()
    assert state.keys() == read_state.keys() and all(
        torch.equal(state[key], read_state[key]) for key in state
    )
    w = again.mapping(expected["z"])  # type: ignore[operator]
    assert torch.allclose(w, expected["w"], rtol=0, atol=TOLERANCE)


def test_converting_the_generator_there_and_back_is_exact(generator, generator_state):
    back = generator_to_rosinality(generator)
    kernels = {key for key in back if key.endswith("kernel")}
    assert back.keys() - kernels == generator_state.keys()
    assert all(torch.equal(back[key], value) for key, value in generator_state.items())
    assert len(kernels) == 8 and all(back[key].shape == (4, 4) for key in kernels)
    assert all(back[key].sum().item() == pytest.approx(4) for key in kernels)


def test_discriminator_reproduces_the_reference(rules, expected):
    state = fill(rules["discriminator"])
    discriminator = discriminator_from_rosinality(state)
    with torch.no_grad():
        result = discriminator(expected["d_in"])
    assert torch.allclose(result, expected["d_out"], rtol=0, atol=TOLERANCE)
    back = discriminator_to_rosinality(discriminator)
    assert all(torch.equal(back[key], value) for key, value in state.items())
    assert all(back[key].sum().item() == pytest.approx(1) for key in back.keys() - state.keys())
