"""FVD (Unterthiner et al. 2018): the Fréchet distance between Gaussians fitted to the I3D features of windows of frames.

The network is StyleGAN-V's TorchScript port of the I3D trained on Kinetics-400, with 400 features. A window is 16
consecutive frames at 25 fps, and windows do not overlap; what is left at the end of a clip is not used. If the file is not
on this machine, FVD is None and the reason is reported: nothing is downloaded, and no other network is used instead.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylegan2.images import to_tensor
from stylegan2.public.catalogue import demanded, entry_of
from stylegan2.weights import WeightsError, file_hash

FRAMES = 16  # of a window
SIDE = 224  # px
I3D = Callable[[np.ndarray], np.ndarray]


class Window:
    """Collects the frames of one clip until a window is complete."""

    def __init__(self) -> None:
        self._frames: list[np.ndarray] = []
        self._next = 0

    def completed(self, frame: np.ndarray, t: int) -> np.ndarray | None:
        """Adds frame t, uint8 (H, W, 3). Returns (16, H, W, 3) if it completes a window; a gap in t begins a new one."""
        if t != self._next:
            self._frames = []
        self._next = t + 1
        self._frames.append(frame)
        if len(self._frames) < FRAMES:
            return None
        window, self._frames = np.stack(self._frames), []
        return window


def at_network_size(frames_THWC: np.ndarray) -> Tensor:
    """uint8 (T, H, W, 3) -> float (T, 3, 224, 224) in [-1, 1]: the shorter side is resized, the middle of the longer kept."""
    x = to_tensor(frames_THWC)
    height, width = x.shape[-2:]
    scale = SIDE / min(height, width)
    size = (round(height * scale), round(width * scale))
    x = torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return x[..., top : top + SIDE, left : left + SIDE]


def load_i3d(
    path: str | Path | None = None, device: torch.device | str = "cpu"
) -> tuple[I3D | None, str | None]:
    """(features, None) with features(frames uint8 (16, H, W, 3)) -> (1, 400), or (None, reason). Downloads nothing.

    path: the TorchScript file; by default the place that stylegan2/public/catalogue.py names. TorchScript is a program, so
    a file with another hash than the catalogue's is not loaded.
    """
    try:
        path = demanded("i3d_fvd", "I3D", path)
        if (digest := file_hash(path)) != entry_of("i3d_fvd").sha256:
            return None, f"{path} has sha256 {digest[:12]}, not that of the catalogue: fetch it again"
        network = torch.jit.load(path, map_location=device).eval()
    except WeightsError as error:
        return None, str(error)
    except (OSError, RuntimeError) as error:
        return (
            None,
            f"{path} is no TorchScript file that can be read ({type(error).__name__}): fetch it again",
        )

    @torch.inference_mode()
    def features(frames_THWC: np.ndarray) -> np.ndarray:
        x_NCTHW = at_network_size(frames_THWC).transpose(0, 1)[None].to(device)
        return network(x_NCTHW, rescale=False, resize=False, return_features=True).cpu().numpy()

    return features, None
