"""Losses of stage 1 that look at rendered frames: the paper's L_lpips, and optional ones of the mouth, its landmarks and
its sync with the sound (ours).

Rendering costs a forward and backward pass of the generator, so a term sees one frame drawn from the batch, and sync a
short run of frames, every losses.image_every steps. The networks' own weights get no gradient.

Shapes: N clips, T frames, L rows of W+, D = 512, C coefficients, K frames of a run, S = 48 px of a mouth picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from audio.features import extract_features
from audio.sync.lip_sync_net import SIDE, WINDOW, LipSyncNet
from audio.waveform import Waveform
from encoders.features.mouth_crop import GREY, MOUTH_PLACE
from encoders.footage.align import CROP_SIZE
from encoders.geometry import MOUTH
from encoders.records import FrameClip
from stylegan2.images import resize, to_tensor
from stylegan2.protocol import Generator
from trajectory.data.windows import TrajectoryClip
from trajectory.losses.stage1_losses import LossConfig
from trajectory.model.displacement import DisplacementSpace, TrajectoryError

Distance = Callable[[Tensor, Tensor], Tensor]  # images (N, 3, H, W) twice -> (N,)
Places = Sequence[tuple[TrajectoryClip, int]]  # of each window: its clip and first frame


def mouth_crop(x_N3HW: Tensor) -> Tensor:
    """The mouth's fixed place in the aligned face, (N, 3, 96, 96)."""
    return resize(x_N3HW, CROP_SIZE)[..., MOUTH_PLACE[0], MOUTH_PLACE[1]]


def lip_distance(a_NP2: Tensor, b_NP2: Tensor) -> Tensor:
    """Points 48-67, each set's centroid removed, mean distance in px of the crop: (N, 68, 2) twice -> (N,).

    encoders.lmd.mouth_distance, with gradients.
    """
    a, b = (x[:, MOUTH] - x[:, MOUTH].mean(1, keepdim=True) for x in (a_NP2, b_NP2))
    return torch.linalg.vector_norm(a - b, dim=-1).mean(-1)


def mouth_motion(x_K3HW: Tensor) -> Tensor:
    """Frames that follow one another -> windows (K - 4, 5, S, S) as audio.sync.lip_sync_net.mouth_windows, with gradients.

    What the mouth looks like on average is taken over these K frames, not over the whole clip.
    """
    grey_KHW = (
        mouth_crop(x_K3HW) * torch.tensor(GREY, dtype=x_K3HW.dtype, device=x_K3HW.device)[:, None, None]
    ).sum(1)
    m_KSS = resize(grey_KHW[:, None], SIDE)[:, 0] * 127.5
    x_KSS = m_KSS - m_KSS.mean(0)
    x_KSS = x_KSS / x_KSS.std(correction=0).clamp_min(1.0)
    return x_KSS.unfold(0, WINDOW, 1).permute(0, 3, 1, 2)


def sync_loss(x_K3HW: Tensor, sounds_WJM: Tensor, net: LipSyncNet) -> Tensor:
    """L_sync = mean over windows of 1 - <lips, sound>, both unit vectors of the network."""
    return 1 - (net.lips(mouth_motion(x_K3HW)) * net.sounds(sounds_WJM)).sum(1).mean()


class RenderedTerms:
    """The terms of one batch, unweighted: "image", "mouth", "landmark", "sync", those whose weight is not 0.

    perceptual: for image and mouth; landmarks: images -> (N, 68, 2), for landmark; sync: for sync. With
    losses.real_target the target is the camera's frame, else the inverted one, G(w_t): stage 1 is then not asked for
    what G cannot make.
    """

    def __init__(
        self,
        generator: Generator,
        losses: LossConfig,
        perceptual: Distance | None = None,
        landmarks: Callable[[Tensor], Tensor] | None = None,
        sync: LipSyncNet | None = None,
    ) -> None:
        self.generator, self.losses = generator, losses
        self.perceptual, self.landmarks, self.sync = perceptual, landmarks, sync
        for part in (generator, perceptual, landmarks, sync):
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)

    def __call__(
        self,
        c_NTC: Tensor,
        d_NTLD: Tensor,
        w_ref_NLD: Tensor,
        mask_NT: Tensor,
        space: DisplacementSpace,
        rng: np.random.Generator,
        places: Places = (),
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        if self.losses.image or self.losses.mouth or self.losses.landmark:
            n = int(rng.integers(len(c_NTC)))
            t = int(rng.integers(int(mask_NT[n].sum())))
            made = self.generator.synthesis((w_ref_NLD[n] + space.decode(c_NTC[n, t]))[None])
            with torch.no_grad():
                if self.losses.real_target:
                    true = _real_frame(places[n], t, made.device)
                else:
                    true = self.generator.synthesis((w_ref_NLD[n] + d_NTLD[n, t])[None])
            terms |= self._still(made, true)
        if self.losses.sync and self.sync is not None:
            n = int(rng.integers(len(c_NTC)))
            frames = int(mask_NT[n].sum())
            length = min(self.losses.sync_frames, frames)
            if length >= WINDOW:  # a clip shorter than one window has no sync
                t = int(rng.integers(frames - length + 1))
                made = self.generator.synthesis(w_ref_NLD[n] + space.decode(c_NTC[n, t : t + length]))
                sounds = _sound_windows(places[n], t, length, self.sync).to(made.device)
                terms["sync"] = sync_loss(made, sounds, self.sync)
        return terms

    def _still(self, made: Tensor, true: Tensor) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        if self.losses.image and self.perceptual is not None:
            terms["image"] = self._perceptual(made, true, lambda x: resize(x, self.losses.image_size))
        if self.losses.mouth and self.perceptual is not None:
            terms["mouth"] = self._perceptual(made, true, mouth_crop)
        if self.losses.landmark and self.landmarks is not None:
            with torch.no_grad():
                target = self.landmarks(true)
            terms["landmark"] = lip_distance(self.landmarks(made), target).mean()
        return terms

    def _perceptual(self, made: Tensor, true: Tensor, view: Callable[[Tensor], Tensor]) -> Tensor:
        assert self.perceptual is not None
        return self.perceptual(view(made), view(true)).mean()


def _frames_of(place: tuple[TrajectoryClip, int]) -> FrameClip:
    clip, _ = place
    if clip.frames is None:
        raise TrajectoryError(
            f"clip {clip.name} names no file of its frames, which real_target and sync need"
        )
    return FrameClip.load(clip.frames)


def _real_frame(place: tuple[TrajectoryClip, int], t: int, device: torch.device) -> Tensor:
    return to_tensor(np.asarray(_frames_of(place).frames[place[1] + t]), device)


def _sound_windows(place: tuple[TrajectoryClip, int], t: int, length: int, net: LipSyncNet) -> Tensor:
    """The sound of `length` frames as the network hears it, one window for each that has two on either side."""
    clip, first = _frames_of(place), place[1] + t
    features = extract_features(Waveform(np.asarray(clip.waveform)), net.sizes.features, len(clip)).values
    return torch.from_numpy(features[first + WINDOW // 2 : first + length - WINDOW // 2])
