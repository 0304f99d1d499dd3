"""Converts images between uint8 HWC (RGB, numpy: files and records) and float32 NCHW in [-1, 1] (torch: networks)."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor


def upright_rgb(picture: Image.Image) -> Image.Image:
    """An opened picture as 8-bit RGB, turned as its EXIF tag says; 16-bit grey is scaled to 8 bits (v / 257)."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # convert() would clip values above 255 to white
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    return picture.convert("RGB")


def to_tensor(frames: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (N, H, W, 3) or (H, W, 3) -> float32 (N, 3, H, W) in [-1, 1]: x = v / 127.5 - 1."""
    x = torch.as_tensor(np.ascontiguousarray(frames) if isinstance(frames, np.ndarray) else frames)
    if x.dtype != torch.uint8 or x.ndim not in (3, 4) or x.shape[-1] != 3:
        raise ValueError(f"expected uint8 images (N, H, W, 3) or (H, W, 3), got {x.dtype} {tuple(x.shape)}")
    x = x if x.ndim == 4 else x[None]
    return x.to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def to_uint8(x_N3HW: Tensor) -> np.ndarray:
    """float (N, 3, H, W) -> uint8 (N, H, W, 3), clamped to [-1, 1] and rounded: the inverse of `to_tensor`."""
    if x_N3HW.ndim != 4 or x_N3HW.shape[1] != 3:
        raise ValueError(f"expected images (N, 3, H, W), got {tuple(x_N3HW.shape)}")
    v = x_N3HW.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return v.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def resize(x_NCHW: Tensor, size: int) -> Tensor:
    """(N, C, H, W) -> (N, C, size, size): area averaging to a smaller size, bilinear to a larger one."""
    height, width = x_NCHW.shape[-2:]
    if (height, width) == (size, size):
        return x_NCHW
    if height >= size and width >= size:
        return F.interpolate(x_NCHW, size=(size, size), mode="area")
    return F.interpolate(x_NCHW, size=(size, size), mode="bilinear", align_corners=False)
