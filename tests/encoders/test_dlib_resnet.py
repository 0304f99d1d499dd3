"""dlib's recognition network in PyTorch against dlib itself, on faces of the embedded generator."""

from typing import Any

import dlib as untyped_dlib
import numpy as np
import pytest
import torch
from PIL import Image

from encoders.features.dlib_resnet import MODEL, DifferentiableIdentity, DlibResNet, load_dlib_resnet
from encoders.features.face_chip import MEAN_X, MEAN_Y, POINTS, chip
from encoders.features.identity import DlibIdentity, identity_distance
from encoders.footage.faces import DlibDetector, Face, dlib_model_path, single_face
from stylegan2.images import to_tensor, to_uint8
from stylegan2.load import load_generator
from stylegan2.protocol import sample_w
from stylegan2.render import render
from stylegan2.weights import WeightsError

pytestmark = pytest.mark.usefixtures("one_thread")
dlib: Any = untyped_dlib


@pytest.fixture(scope="module")
def net() -> DlibResNet:
    return load_dlib_resnet()


@pytest.fixture(scope="module")
def detector() -> DlibDetector:
    return DlibDetector()


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    generator = load_generator("embedded")
    return list(render(generator, sample_w(generator, 3, 11, 0.7).numpy()))


def found(detector: DlibDetector, image: np.ndarray) -> Face:
    return single_face(detector(image), "test image")


def points(face: Face) -> torch.Tensor:
    return torch.from_numpy(face.landmarks)[None]


def dlib_chip(image: np.ndarray, face: Face) -> np.ndarray:
    shape = dlib.full_object_detection(
        dlib.rectangle(0, 0, 1, 1), [dlib.point(*map(int, point)) for point in face.landmarks]
    )
    return dlib.get_face_chip(image, shape, size=150, padding=0.25)


def changed(image: np.ndarray, side: int, angle: float = 0) -> np.ndarray:
    return np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC).rotate(angle))


def test_the_network_equals_dlibs_on_dlibs_chips(net, detector, faces) -> None:
    reference = dlib.face_recognition_model_v1(str(dlib_model_path(MODEL)))
    chips = np.stack([dlib_chip(image, found(detector, image)) for image in faces])
    expected = np.stack([np.array(reference.compute_face_descriptor(one)) for one in chips])
    with torch.no_grad():
        np.testing.assert_allclose(net(to_tensor(chips)).numpy(), expected, atol=1e-5)
    assert identity_distance(expected[0], expected[1]) > 0.3


@pytest.mark.parametrize(
    ("side", "angle", "halvings"), [(180, 0, 0), (256, 10, 0), (512, 13, 1), (1024, -7, 2)]
)
def test_chip_and_embedding_follow_dlibs(net, detector, faces, side, angle, halvings) -> None:
    """dlib cuts off the fractions of pixel values (0-255) after each halving and after sampling; the chip here does not."""
    image = changed(faces[0], side, angle)
    face, x = found(detector, image), to_tensor(image)
    ours = (chip(x, points(face))[0].permute(1, 2, 0).numpy() + 1) * 127.5
    difference = ours - dlib_chip(image, face)
    assert difference.min() > -0.02 and difference.max() < halvings + 1.02
    with torch.no_grad():
        embedding = DifferentiableIdentity(net)(x, points(face))[0].numpy()
    assert identity_distance(embedding, DlibIdentity().embed(image, face.landmarks)) < 0.02


def test_places_outside_the_image_are_black(net, detector, faces) -> None:
    image = np.ascontiguousarray(faces[1][60:, 70:])
    face = found(detector, image)
    ours, theirs = chip(to_tensor(image), points(face))[0], dlib_chip(image, face)
    black = (theirs == 0).all(-1)
    assert 0.05 < black.mean() < 0.5
    assert bool((ours[:, torch.from_numpy(black)] < -0.99).all())
    with torch.no_grad():
        embedding = net(ours[None])[0].numpy()
    assert identity_distance(embedding, DlibIdentity().embed(image, face.landmarks)) < 0.02


def test_the_mean_face_fills_the_chip() -> None:
    """Landmarks at the mean face's own place in a chip give this chip, but for dlib's half pixel."""
    x = to_tensor(np.random.default_rng(0).integers(0, 256, (150, 150, 3)).astype(np.uint8))
    landmarks = torch.zeros(1, 68, 2)
    landmarks[0, list(POINTS)] = (torch.tensor([MEAN_X, MEAN_Y]).T + 0.25) * 100
    half = (x[:, :, 1:, 1:] + x[:, :, :-1, 1:] + x[:, :, 1:, :-1] + x[:, :, :-1, :-1]) / 4
    torch.testing.assert_close(chip(x, landmarks)[:, :, :-1, :-1], half, atol=1e-3, rtol=0)


def test_images_of_a_batch_do_not_affect_one_another(net, detector, faces) -> None:
    identity, found_faces = DifferentiableIdentity(net), [found(detector, image) for image in faces]
    x, landmarks = to_tensor(np.stack(faces)), torch.cat([points(face) for face in found_faces])
    with torch.no_grad():
        together = identity(x, landmarks)
        alone = torch.cat([identity(x[n : n + 1], landmarks[n : n + 1]) for n in range(3)])
        assert identity(x[:0], landmarks[:0]).shape == (0, 128)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_steps_along_the_gradient_change_dlibs_own_embedding(net, detector, faces) -> None:
    identity, face = DifferentiableIdentity(net), found(detector, faces[0])
    judge, goal = DlibIdentity(), found(detector, faces[2])
    target = torch.from_numpy(judge.embed(faces[2], goal.landmarks))
    x = to_tensor(faces[0])
    for _ in range(8):
        x.requires_grad_()
        (slope,) = torch.autograd.grad((identity(x, points(face)) - target).norm(), x)
        x = (x.detach() - 0.02 * slope.sign()).clamp(-1, 1)
    assert bool((slope[:, :, 0] == 0).all()) and bool((slope[:, :, 100:200, 100:150] != 0).any())
    before = identity_distance(judge.embed(faces[0], face.landmarks), target.numpy())
    after = identity_distance(judge.embed(to_uint8(x)[0], face.landmarks), target.numpy())
    assert after < 0.7 * before
    assert not any(parameter.requires_grad for parameter in net.parameters())


def broken_files() -> dict[str, bytes]:
    whole = dlib_model_path(MODEL).read_bytes()
    weights = whole.index(b"con_4") + 16
    cuts = {f"cut at {at}": whole[:at] for at in (0, 10, 200, 350, 5000, len(whole) // 2, len(whole) - 1)}
    return cuts | {
        "longer": whole + b"\0",
        "not dlib's": b"\x80" * 4096,
        "another layer": whole.replace(b"con_4", b"con_9", 1),
        "another stride": whole.replace(b"\1\3\1\3\1\2\1\2", b"\1\3\1\3\1\1\1\1"),
        "nan": whole[:weights] + b"\xff" * 4 + whole[weights + 4 :],
    }


def test_a_damaged_file_is_one_sentence(tmp_path) -> None:
    path = tmp_path / "model.dat"
    for name, content in broken_files().items():
        path.write_bytes(content)
        with pytest.raises(WeightsError) as error:
            load_dlib_resnet(path=path)
        message = str(error.value)
        assert message.startswith(str(path)) and "copy it again" in message and "\n" not in message, name
    with pytest.raises(WeightsError, match="no weight file"):
        load_dlib_resnet(path=tmp_path / "missing.dat")


def test_wrong_input_is_refused(net, detector, faces) -> None:
    x, landmarks = to_tensor(faces[0]), points(found(detector, faces[0]))
    for wrong in (landmarks[:, :5], landmarks.expand(2, -1, -1), landmarks * torch.nan):
        with pytest.raises(ValueError, match="68 finite landmarks"):
            chip(x, wrong)
    with pytest.raises(ValueError, match="coincide"):
        chip(x, landmarks * 0 + 100)
    for shift in (-1000, 1000):
        with pytest.raises(ValueError, match="outside"):
            chip(x, landmarks + shift)
    with pytest.raises(ValueError, match="150"):
        net(x)
