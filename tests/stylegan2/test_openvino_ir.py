"""The wheel's generator: equal to its own network, and rendered from latents with fewer rows."""

import numpy as np
import pytest
import torch

from stylegan2.embedded.openvino_ir import load_uncut_generator, wheel_folder, write_uncut
from stylegan2.latent_pairs import draw_codes, extend_rows
from stylegan2.load import load_generator
from stylegan2.networks.mobile_stylegan import MobileStyleGAN


@pytest.fixture(scope="module")
def uncut() -> MobileStyleGAN:
    return load_uncut_generator()


@pytest.fixture(scope="module")
def embedded() -> MobileStyleGAN:
    return load_generator("embedded")


def test_uncut_network_equals_the_wheels_own(uncut: MobileStyleGAN) -> None:
    openvino = pytest.importorskip("openvino")
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}

    def compiled(name: str):
        return core.compile_model(core.read_model(str(wheel_folder() / name)), "CPU", exact)

    z = torch.randn(1, 512, generator=torch.Generator().manual_seed(0))
    w = compiled("MappingNetwork.xml")([z.numpy()])[0]
    assert np.abs(uncut.mapping(z).detach().numpy() - w).max() < 1e-4
    image = compiled("SynthesisNetwork.xml")([w])[0]
    with torch.inference_mode():
        images = uncut.synthesis(extend_rows(torch.from_numpy(w)[:, None], 18)).numpy()
    assert images.shape == image.shape == (1, 3, 1024, 1024)
    assert np.abs(images - image).max() < 1e-3


def test_latents_with_fewer_rows_are_shown_at_1024_px(
    tmp_path, uncut: MobileStyleGAN, embedded: MobileStyleGAN
) -> None:
    write_uncut(tmp_path / "uncut.safetensors")
    written = load_generator(tmp_path / "uncut.safetensors")
    assert (written.num_rows, written.resolution) == (embedded.num_rows, 1024)
    assert torch.equal(written.w_avg, embedded.w_avg)
    w = draw_codes(embedded, 1, np.random.default_rng(0), mixing=1.0)
    with torch.inference_mode():
        image, expected = written.synthesis(w), uncut.synthesis(extend_rows(w, 18))
    assert (image - expected).abs().max() < 0.1  # float16 weights
    assert (image - expected).abs().mean() < 2e-3
    with pytest.raises(ValueError, match="num_rows"):
        MobileStyleGAN(256, num_rows=15)
