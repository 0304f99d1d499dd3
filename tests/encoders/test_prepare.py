"""Footage -> FrameClip: tracking, alignment, sound, and the reasons for which a clip is rejected.

Most tests use a coloured disc as a face and a detector of that colour, so that the true position is known. Some use
dlib on scikit-image's public-domain portrait, and a slow one uses real clips that are not part of the repository.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import center_of_mass, label
from skimage import data

from audio.waveform import AudioError, Waveform
from encoders.footage.align import ffhq_quad
from encoders.footage.faces import DlibDetector, Face, FaceError
from encoders.footage.prepare import FaceTracker, PrepareConfig, align_photo, prepare_clip, read_photo
from encoders.footage.video_reader import VideoError
from encoders.footage.video_writer import write_video
from encoders.geometry import aperture
from encoders.records import FrameClip

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
COUNT = 25
NAMES: dict[str, Any] = {"name": "n", "speaker": "s", "sentence": "t", "split": "train"}


def template():
    """68 points around (0, 0), about 1 across, with two eyes and a mouth."""
    points = np.zeros((68, 2), np.float32)
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    points[:36] = 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points[36:42], points[42:48] = [-0.2, -0.1], [0.2, -0.1]
    points[48:] = [0, 0.25]
    points[48], points[54] = [-0.15, 0.25], [0.15, 0.25]
    return points


class DiscDetector:
    """Detects red discs as faces of the same position and size."""

    name = "disc"

    def __init__(self):
        self.whole, self.near = 0, 0

    def __call__(self, image, near=None):
        self.whole += near is None
        self.near += near is not None
        red = (image[..., 0].astype(int) - image[..., 1]) > 90
        marks, count = cast(Any, label(red))
        faces = []
        for index in range(1, count + 1):
            area = (marks == index).sum()
            y, x = center_of_mass(marks == index)
            if area < 30 or (
                near is not None and np.abs((near[:2] + near[2:]) / 2 - [x, y]).max() > near[2] - near[0]
            ):
                continue
            side = 2 * np.sqrt(area / np.pi)
            box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)
            faces.append(Face(box, (template() * side + [x, y]).astype(np.float32)))
        return sorted(faces, key=lambda face: -face.size)


def scene(discs, height=180, width=240):
    """Grey with red discs (x, y, diameter)."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 120, np.uint8)
    image[..., 2] = 80 + x // 3
    for cx, cy, diameter in discs:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= diameter**2 / 4] = [230, 60, 60]
    return image


def video(path, discs_of_frame, sound: int | None = COUNT * 640, count=COUNT, **size):
    rng = np.random.default_rng(0)
    waveform = None if sound is None else Waveform((0.1 * rng.normal(size=sound)).astype(np.float32))
    write_video(
        path, (scene(discs_of_frame(k), **size) for k in range(count)), waveform, crf=10, preset="ultrafast"
    )
    return path


def moving(k):
    return [(90 + 2 * k, 90, 60)]


def test_a_clip(tmp_path):
    path = video(tmp_path / "clip 1.mp4", moving)
    detector = DiscDetector()
    clip = prepare_clip(path, detector, **NAMES)
    assert clip.frames.shape == (COUNT, 256, 256, 3) and clip.detected.all()
    assert clip.waveform.shape == (COUNT * 640,) and (clip.source, len(clip.source_hash)) == (
        "clip 1.mp4",
        64,
    )
    # The quad follows the disc, steadily; its size is the template's.
    centres = clip.quads.mean(axis=1)
    expected = ffhq_quad(template() * 60 + [90, 90]).mean(axis=0) + 2 * np.arange(COUNT)[:, None] * [1, 0]
    np.testing.assert_allclose(centres[4:-4], expected[4:-4], atol=1.0)
    # In the crop the disc does not move, and the landmarks are those detected in the crop.
    drift = clip.landmarks.mean(axis=1)
    assert drift[4:-4].std(axis=0).max() < 2
    np.testing.assert_allclose(clip.landmarks[7], detector(clip.frames[7])[0].landmarks)
    clip.save(tmp_path / "c.safetensors")
    assert FrameClip.load(tmp_path / "c.safetensors").content_hash() == clip.content_hash()


def test_preparing_twice_gives_the_same(tmp_path):
    path = video(tmp_path / "x.mp4", moving)
    hashes = {prepare_clip(path, DiscDetector(), **NAMES).content_hash() for _ in range(2)}
    assert len(hashes) == 1


def test_a_few_lost_frames_are_filled_in_and_recorded(tmp_path):
    gone = (7, 8, 9)
    path = video(tmp_path / "x.mp4", lambda k: [] if k in gone else moving(k))
    clip = prepare_clip(path, DiscDetector(), **NAMES)
    assert [k for k in range(COUNT) if not clip.detected[k]] == list(gone)
    assert np.isfinite(clip.landmarks).all()
    steps = np.diff(clip.quads.mean(axis=1)[:, 0])
    assert steps[4:14].min() > 1.0 and steps[4:14].max() < 3.0


def test_a_face_that_is_missing_too_often(tmp_path):
    path = video(tmp_path / "x.mp4", lambda k: [] if k > 15 else moving(k))
    with pytest.raises(FaceError, match=r"x\.mp4 shows no face in too many of its frames"):
        prepare_clip(path, DiscDetector(), **NAMES)


def test_a_long_video_without_a_face_is_given_up_early(tmp_path):
    path = video(tmp_path / "x.mp4", lambda k: [], count=100, sound=100 * 640)
    detector = DiscDetector()
    with pytest.raises(FaceError, match="no face"):
        prepare_clip(path, detector, **NAMES)
    assert detector.whole + detector.near <= 4


@pytest.mark.parametrize(
    ("diameter", "frames", "rejected"),
    [(60, range(25), True), (45, range(10, 20), True), (20, range(25), False), (60, range(10, 13), False)],
)
def test_a_large_second_face_in_many_frames_is_rejected(tmp_path, diameter, frames, rejected):
    path = video(
        tmp_path / "x.mp4", lambda k: [(60 + k, 90, 62)] + ([(180, 90, diameter)] if k in frames else [])
    )
    config = PrepareConfig(check_every=1)
    if rejected:
        with pytest.raises(FaceError, match="two faces of similar size"):
            prepare_clip(path, DiscDetector(), **NAMES, config=config)
    else:
        clip = prepare_clip(path, DiscDetector(), **NAMES, config=config)
        assert clip.quads.mean(axis=(1, 2)).max() < 120  # the first face in all frames


def test_a_cut_to_another_person_is_rejected(tmp_path):
    path = video(tmp_path / "x.mp4", lambda k: [(60, 90, 60) if k < 12 else (180, 90, 60)])
    with pytest.raises(FaceError, match=r"jumps at 0\.48 s"):
        prepare_clip(path, DiscDetector(), **NAMES)


@pytest.mark.parametrize("samples", [COUNT * 640 - 900, COUNT * 640 + 5000])
def test_the_sound_is_as_long_as_the_pictures(tmp_path, samples):
    clip = prepare_clip(video(tmp_path / "x.mp4", moving, sound=samples), DiscDetector(), **NAMES)
    assert clip.waveform.shape == (COUNT * 640,) and clip.waveform.dtype == np.float32


def test_silent_short_and_partly_silent_videos_are_rejected(tmp_path, monkeypatch):
    with pytest.raises(VideoError, match=r"silent\.mp4 has no audio track"):
        prepare_clip(video(tmp_path / "silent.mp4", moving, sound=None), DiscDetector(), **NAMES)
    with pytest.raises(VideoError, match=r"lasts 0\.20 s"):
        prepare_clip(video(tmp_path / "short.mp4", moving, count=5), DiscDetector(), **NAMES)
    path = video(tmp_path / "x.mp4", moving)
    monkeypatch.setattr(
        "encoders.footage.prepare.read_audio", lambda path, reading: Waveform(np.zeros(5000, np.float32))
    )
    with pytest.raises(VideoError, match=r"the sound of .*x\.mp4 lasts 0\.31 s and its pictures 1\.00 s"):
        prepare_clip(path, DiscDetector(), **NAMES)
    monkeypatch.undo()
    with pytest.raises(AudioError):
        prepare_clip(video(tmp_path / "tiny.mp4", moving, count=2, sound=1280), DiscDetector(), **NAMES)


def test_the_tracker_searches_the_whole_frame_only_at_checks_and_losses():
    detector = DiscDetector()
    tracker = FaceTracker(detector, check_every=10)
    faces = [tracker(scene([(100, 90, 60)])) for _ in range(30)]
    assert all(face is not None for face in faces)
    assert (detector.whole, detector.near) == (3, 27)
    # Far from its last position the face is found first by the regular check, then by the search after a loss.
    assert tracker(scene([(30, 40, 60)])) is not None
    assert tracker(scene([(200, 90, 60)])) is not None
    assert detector.whole == 5


def test_the_tracker_keeps_the_same_face():
    tracker = FaceTracker(DiscDetector(), check_every=1)
    for k in range(20):
        face = tracker(scene([(60, 90, 50), (180, 90, 50 + (2 * k if k > 3 else -6))]))
        assert face is not None and abs(face.box[0] - 35) < 3


@pytest.mark.parametrize(
    "change", [{"max_rival": 1.5}, {"check_every": 0}, {"sigma_axes": -1.0}, {"size": -1}]
)
def test_config_validates_itself(change):
    with pytest.raises(ValueError):
        PrepareConfig(**change)


# ------------------------------------------------------------------------------------------------ real pictures


@pytest.fixture(scope="module")
def dlib_detector():
    return DlibDetector()


def test_a_photo(tmp_path, dlib_detector):
    # Rotated by 90 degrees, with the EXIF tag for it.
    picture = Image.fromarray(data.astronaut()).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "photo [1].jpg", exif=exif, quality=95)
    image = read_photo(tmp_path / "photo [1].jpg")
    assert np.abs(image.astype(int) - data.astronaut()).mean() < 6
    photo = align_photo(image, dlib_detector, "photo")
    assert photo.crop.shape == (256, 256, 3)
    again = ffhq_quad(photo.landmarks)  # the quad of an aligned crop is its border
    np.testing.assert_allclose(again, [[0, 0], [0, 255], [255, 255], [255, 0]], atol=12)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_photo_without_an_orientation_tag(dlib_detector, turns):
    whole = data.astronaut()
    upright = align_photo(whole, dlib_detector)
    turned = align_photo(np.rot90(whole, turns), dlib_detector)
    assert upright.turned == 0 and turned.turned == 360 - 90 * turns
    np.testing.assert_allclose(turned.landmarks, upright.landmarks, atol=3)
    assert np.abs(turned.crop.astype(int) - upright.crop).mean() < 4


def test_what_is_hardly_a_face_is_refused():
    class Doubtful:
        name = "doubtful"

        def __call__(self, image, near=None):
            return [Face(np.array([10, 10, 90, 90], np.float32), np.zeros((68, 2), np.float32), 0.05)]

    with pytest.raises(FaceError, match=r"me\.png shows what is hardly a face \(dlib's score is 0\.05"):
        align_photo(np.zeros((100, 100, 3), np.uint8), Doubtful(), "me.png")


def test_a_photo_of_16_bits_keeps_its_range(tmp_path):
    grey = np.array([[0, 257, 20000, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert read_photo(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 77, 255]


def test_photos_that_cannot_be_used(tmp_path, dlib_detector):
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(VideoError, match=r"text\.jpg is not a picture"):
        read_photo(tmp_path / "text.jpg")
    with pytest.raises(VideoError, match=r"absent\.jpg does not exist"):
        read_photo(tmp_path / "absent.jpg")
    with pytest.raises(FaceError, match=r"wall\.png shows no face"):
        align_photo(np.full((100, 100, 3), 90, np.uint8), dlib_detector, "wall.png")


def test_a_real_face_that_moves(tmp_path, dlib_detector):
    portrait = data.astronaut()[:300, 60:380]
    frames = [portrait[10 : 10 + 260, k : k + 280] for k in range(0, 24, 2)]
    path = tmp_path / "x.mp4"
    write_video(path, frames, Waveform(np.full(12 * 640, 0.01, np.float32)), crf=12)
    clip = prepare_clip(path, dlib_detector, **NAMES)
    assert len(clip) == 12 and clip.detected.all()
    assert clip.landmarks.std(axis=0).max() < 4  # the crop follows the face
    assert 0.05 < aperture(clip.landmarks).mean() < 0.3  # she smiles


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not on this machine")
def test_a_real_clip(dlib_detector):
    clip = prepare_clip(REAL / "clip_d.mp4", dlib_detector, **NAMES)
    assert len(clip) == 166 and clip.detected.mean() > 0.98 and clip.waveform.shape == (166 * 640,)
    np.testing.assert_allclose(clip.landmarks[:, 36:48].mean(axis=(0, 1)), [127.5, 116], atol=10)
    assert aperture(clip.landmarks).std() > 0.03
