"""Puts the generated mouth back into the clip (compose=frame), or the generated face back into the photo (compose=photo).

compose=frame: everything but the lower face is the clip's own. Each of its frames is inverted, its code gets the
predicted mouth (trajectory.model.mouth_exchange), and what the generator makes of it is blended into the frame
(encoders.footage.paste_back), at the clip's own size and rate. A clip that is shorter than the speech goes forth and
back. Frames without a face stay as they are. Memory does not grow with the length of the clip, apart from its landmarks
and the predicted codes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audio.timing import FPS
from configs.schema import Config
from encoders.bases.viseme_basis import load_viseme_basis
from encoders.features.landmark_net import load_landmark_net
from encoders.footage.align import CROP_SIZE, crop, ffhq_quad, smooth_quads, transform_points
from encoders.footage.paste_back import ColourMatch, lower_face_mask, paste
from encoders.footage.prepare import align_photo, read_photo, track_face
from encoders.footage.video_reader import iter_frames, own_rate
from scripts.core.networks import build_detector
from scripts.core.runtime import Run, RunError
from scripts.stages.invert_frames import Inverter
from scripts.stages.stage_results import Face
from stylegan2.images import resize, to_tensor, to_uint8
from stylegan2.render import render
from trajectory.data.windows import between_frames
from trajectory.model.mouth_exchange import MouthExchange

BATCH = 8  # frames that are inverted at once
BACKWARDS = 256 * 2**20  # bytes of the frames that are held in memory while a clip goes backwards
FADE = 0.2  # seconds over which the generated mouth appears and vanishes beside frames without a face
SMOOTHING = 0.04  # seconds, standard deviation of the smoothing of the mask's landmarks


def demand_composable(config: Config) -> None:
    """Raises RunError if compose= has no picture to compose into."""
    if config.compose == "frame" and config.clip is None:
        raise RunError(
            "compose=frame puts the mouth into a video: give clip=VIDEO, or set compose=photo or crop."
        )
    if config.compose == "photo" and (config.photo is None or Path(config.photo).is_dir()):
        raise RunError(
            "compose=photo puts the face into one photo: give photo=FILE, or set compose=frame or crop."
        )


def composed(
    config: Config, run: Run, face: Face, generator: Any, w_TLD: np.ndarray
) -> tuple[Iterator[np.ndarray], int | Fraction]:
    """The frames of the video, uint8 (H, W, 3), and their rate. w_TLD: predicted codes at 25 fps."""
    if config.compose == "frame":
        return _in_clip(config, run, face, generator, w_TLD)
    frames = render(generator, w_TLD)
    return (_in_photo(config, run, frames) if config.compose == "photo" else frames), FPS


def _in_photo(config: Config, run: Run, generated: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    picture = read_photo(str(config.photo))
    photo = align_photo(picture, build_detector(config.data, str(run.device)), str(config.photo))
    picture = np.ascontiguousarray(np.rot90(picture, photo.turned // 90))
    blend = Blend(run.device)
    for image in generated:
        yield blend(picture, photo.crop, image, photo.quad, photo.landmarks)


def _in_clip(
    config: Config, run: Run, face: Face, generator: Any, w_TLD: np.ndarray
) -> tuple[Iterator[np.ndarray], Fraction]:
    path = Path(str(config.clip))
    rate = own_rate(path)
    track = track_clip(path, config, run, rate)
    count = -(-len(w_TLD) * rate.numerator // (FPS * rate.denominator))
    order = forth_and_back(len(track.quads), count)
    inverter = Inverter(config, run)
    offset_LD = None if face.offset is None else torch.from_numpy(face.offset).to(run.device)
    exchange = MouthExchange.of(load_viseme_basis(), face.w_ref.shape[0])

    def codes(crops: np.ndarray, k_N: np.ndarray) -> np.ndarray:
        return exchange(inverter(crops, offset_LD), codes_at(w_TLD, rate, k_N))

    frames = frames_in_order(path, rate, order)
    return dubbed(frames, order, track, codes, generator, Blend(run.device)), rate


@dataclass(frozen=True, eq=False)
class Track:
    """The face in the T frames of a clip."""

    quads: np.ndarray  # float32 (T, 4, 2), its crops' corners in px of the frame
    landmarks: np.ndarray  # float32 (T, 68, 2), px of the crop
    opacity: np.ndarray  # float32 (T,) in [0, 1]: 0 in frames without a face


def track_clip(path: Path, config: Config, run: Run, rate: Fraction) -> Track:
    """Raises FaceError and VideoError as `track_face` does."""
    from scipy.ndimage import gaussian_filter1d

    detector = build_detector(config.data, str(run.device))
    landmarks, detected = track_face(path, detector, config.prepare, rate)
    scale = float(rate / FPS)  # the smoothing is set in frames of 25 fps
    quads = smooth_quads(
        ffhq_quad(landmarks), scale * config.prepare.sigma_centre, scale * config.prepare.sigma_axes
    )
    in_crop = np.stack([transform_points(p, q) for p, q in zip(landmarks, quads, strict=True)])
    in_crop = gaussian_filter1d(in_crop, SMOOTHING * float(rate), axis=0, mode="nearest")
    return Track(quads, in_crop, opacity_of(detected, FADE * float(rate)))


def opacity_of(detected_T: np.ndarray, fade: float) -> np.ndarray:
    """0 in frames without a face, rising to 1 over `fade` frames beside them: bool (T,) -> float32 (T,).

    In gaps of less than `fade` frames it stays 1, because detectors miss single frames, in which the interpolated
    landmarks are good enough.
    """
    from scipy.ndimage import distance_transform_edt

    known = np.array(detected_T, bool)
    changes = np.flatnonzero(np.diff(known.astype(int), prepend=1, append=1))
    for start, stop in zip(changes[::2], changes[1::2], strict=True):
        if stop - start < fade and start > 0 and stop < len(known):
            known[start:stop] = True
    if known.all():
        return np.ones(len(known), np.float32)
    return (np.asarray(distance_transform_edt(known)) / (fade + 1.0)).clip(0.0, 1.0).astype(np.float32)


def forth_and_back(frames: int, count: int) -> np.ndarray:
    """`count` frame numbers of a clip of `frames` frames: 0, 1, ..., frames - 1, frames - 2, ..., 1, 0, 1, ..."""
    turn = max(1, frames - 1)
    k = np.arange(count) % (2 * turn)
    return np.minimum(np.where(k > turn, 2 * turn - k, k), frames - 1)


def frames_in_order(path: Path, rate: Fraction, order: np.ndarray) -> Iterator[np.ndarray]:
    """The frames with these numbers; neighbours in `order` differ by one.

    A video can only be decoded forwards. Backwards, it is read anew for each block of frames.
    """
    ends = [0, *(np.flatnonzero(np.diff(order, 2)) + 1), len(order) - 1]
    start = 0  # position in `order`
    for _, end in pairwise(ends):
        first, last = int(order[start]), int(order[end])
        if last >= first:
            yield from islice(iter_frames(path, rate), first, last + 1)
        else:
            yield from _backwards(path, rate, first, last)
        start = end + 1


def _backwards(path: Path, rate: Fraction, first: int, last: int) -> Iterator[np.ndarray]:
    """Frames first, first - 1, ..., last."""
    size = next(iter_frames(path, rate)).nbytes
    block = max(1, BACKWARDS // size)
    for stop in range(first + 1, last, -block):
        yield from reversed(list(islice(iter_frames(path, rate), max(last, stop - block), stop)))


def codes_at(w_TLD: np.ndarray, rate: Fraction, k_N: np.ndarray) -> np.ndarray:
    """Codes (N, L, D) of the frames k of a video of this rate, interpolated linearly between the codes at 25 fps."""
    return between_frames(w_TLD, k_N * float(FPS / rate))


def dubbed(
    frames: Iterable[np.ndarray],
    order: np.ndarray,
    track: Track,
    codes: Callable[[np.ndarray, np.ndarray], np.ndarray],
    generator: Any,
    blend: "Blend",
) -> Iterator[np.ndarray]:
    """The frames with the generated mouths. order: the number in `track` of each frame. codes: crops (N, 256, 256, 3) and
    the frames' positions (N,) -> codes (N, L, D)."""
    positions = zip(range(len(order)), frames, strict=True)
    while batch := list(islice(positions, BATCH)):
        faces = [(k, frame) for k, frame in batch if track.opacity[order[k]] > 0]
        generated: Iterator[np.ndarray] = iter(())
        if faces:
            crops = np.stack([crop(frame, track.quads[order[k]]) for k, frame in faces])
            generated = render(generator, codes(crops, np.array([k for k, _ in faces])))
        true = iter(crops if faces else ())
        for k, frame in batch:
            t = order[k]
            if track.opacity[t] > 0:
                place = track.quads[t], track.landmarks[t], float(track.opacity[t])
                frame = blend(frame, next(true), next(generated), *place)
            yield frame


class Blend:
    """Blends generated crops into the frames of one video, in their order."""

    def __init__(self, device: torch.device) -> None:
        self._net, self._match = load_landmark_net().to(device), ColourMatch()

    def __call__(
        self,
        frame: np.ndarray,
        true: np.ndarray,
        generated: np.ndarray,
        quad: np.ndarray,
        landmarks: np.ndarray,
        opacity: float = 1.0,
    ) -> np.ndarray:
        """The frame with the generated crop's lower face. true: the frame's own crop (256, 256, 3); landmarks: the face's in
        that crop. The mask covers the lower faces of both crops."""
        small = resize(to_tensor(generated, next(self._net.parameters()).device), CROP_SIZE)
        with torch.inference_mode():
            points = self._net(small)[0].cpu().numpy()
        mask = lower_face_mask(np.stack([landmarks, points]))
        colours = self._match(true, to_uint8(small)[0], mask)
        return paste(frame, generated, opacity * mask, quad, colours)
