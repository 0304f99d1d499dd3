"""The wavelet generator: its layers in closed form, and the embedded weights."""

import pytest
import torch
import torch.nn.functional as F

from encoders.footage.faces import DlibDetector, face_in_crop
from stylegan2.images import to_uint8
from stylegan2.load import load_generator
from stylegan2.networks.mobile_ops import depthwise, inverse_haar, pointwise, upsample
from stylegan2.networks.mobile_stylegan import MobileStyleGAN
from stylegan2.protocol import Generator, sample_w


@pytest.fixture(scope="module")
def embedded() -> MobileStyleGAN:
    return load_generator("embedded")


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


def test_pointwise_with_bias_and_noise_ends_in_a_leaky_relu() -> None:
    torch.manual_seed(0)
    sizes = ((2, 1, 2, 3), (4, 3), (2, 3), (4,), (2, 1, 2))
    x, weight, style, bias, noise = (torch.randn(*size, dtype=torch.float64) for size in sizes)
    for part in (x, weight, style, bias):
        part.requires_grad_()

    def convolution(x, weight, style, bias=bias):
        return pointwise(x, weight, style, bias, noise)

    plain = F.leaky_relu((x * style[:, None, None]) @ weight.T + bias + noise[..., None], 0.2)
    torch.testing.assert_close(convolution(x, weight, style), plain)
    inputs = (x, weight, style, bias)
    assert torch.autograd.gradcheck(convolution, inputs) and torch.autograd.gradgradcheck(convolution, inputs)
    # Frozen weights have formulas of their own
    assert torch.autograd.gradcheck(lambda x, style: convolution(x, weight.detach(), style), (x, style))


def test_depthwise_is_a_convolution_and_so_are_its_gradients() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 4, 2, dtype=torch.float64), torch.randn(2, 1, 3, 3, dtype=torch.float64)
    expected = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=1, groups=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(depthwise(x, weight), expected)
    inputs = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(depthwise, inputs) and torch.autograd.gradgradcheck(depthwise, inputs)


def test_pointwise_computes_in_the_type_of_its_features() -> None:
    """With features in bfloat16, weights and styles stay in float32, also under autocast."""
    torch.manual_seed(0)
    x, weight, style = torch.randn(2, 2, 2, 8), torch.randn(4, 8), torch.randn(2, 8)
    result = []
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
        result.append(torch.cat([part.float().flatten() for part in (y, *gradients)]))
    assert torch.cosine_similarity(*result, dim=0) > 0.999


def test_haar_is_orthonormal_and_inverts() -> None:
    """One unit coefficient at a time gives the columns of the transform: an orthonormal basis of a 2 x 2 picture."""
    columns = inverse_haar(torch.eye(4).view(4, 1, 1, 4)).view(4, 4)
    torch.testing.assert_close(columns @ columns.T, torch.eye(4))
    x = torch.randn(2, 8, 8, 12)
    picture = inverse_haar(x)
    assert picture.shape == (2, 16, 16, 3)
    torch.testing.assert_close(picture.square().sum(), x.square().sum())
    x = torch.randn(1, 2, 1, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(inverse_haar, (x,)) and torch.autograd.gradgradcheck(inverse_haar, (x,))


@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16])
def test_upsampling_is_the_transform_of_modulated_channels(half: torch.dtype) -> None:
    torch.manual_seed(0)
    x, style = torch.randn(2, 4, 2, 64, requires_grad=True), torch.randn(2, 64, requires_grad=True)
    expected = inverse_haar(x * style[:, None, None])
    result = upsample(x.to(half), style)
    assert result.dtype == half and result.shape == expected.shape
    weight = torch.randn_like(expected)
    gradients = (torch.autograd.grad((y.float() * weight).sum(), (x, style)) for y in (result, expected))
    tolerance = 1e-6 if half == torch.float32 else 1e-2
    for a, b in ((result, expected), *zip(*gradients, strict=True)):
        assert (a - b).norm() < tolerance * b.norm()


def test_averages_alone_make_a_flat_picture_and_details_have_their_directions() -> None:
    def picture(channel: int) -> list[float]:
        x = torch.zeros(1, 1, 1, 4)
        x[..., channel] = 2
        return inverse_haar(x).flatten().tolist()  # top left, top right, bottom left, bottom right

    assert picture(0) == [1, 1, 1, 1]
    assert picture(1) == [1, 1, -1, -1]
    assert picture(2) == [1, -1, 1, -1]
    assert picture(3) == [1, -1, -1, 1]


def test_the_embedded_generator_implements_the_protocol_with_gradients(embedded: MobileStyleGAN) -> None:
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


def test_noise_modes(embedded: MobileStyleGAN) -> None:
    w = sample_w(embedded, 1, 0, 0.7)
    with torch.inference_mode():
        constant, again = embedded.synthesis(w), embedded.synthesis(w)
        none, random = embedded.synthesis(w, "none"), embedded.synthesis(w, "random")
    assert torch.equal(constant, again)
    assert not torch.equal(constant, none) and not torch.equal(constant, random)
