"""Reads pictures, and converts images between uint8 HWC (RGB, numpy: files and records) and float32 NCHW in [-1, 1]
(torch: networks).
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

# Pixels of the largest picture that is read; the largest sensors of phones have 200 megapixels. Pillow's own limit is lower.
LARGEST = 250_000_000
Image.MAX_IMAGE_PIXELS = LARGEST
LONGEST_SIDE = 4096  # px, to which larger pictures are reduced: a face that fills a quarter of it fills a crop of 1024 px
BACKGROUND = 128  # grey of transparent places
# Pillow opens others too, EPS for instance by starting Ghostscript, which executes the file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")


def read_rgb(path: str | Path) -> Image.Image:
    """The picture of a file, of one of FORMATS, as `upright_rgb`. Raises OSError or ValueError for what cannot be read."""
    too_large = ValueError(f"it has more than {LARGEST // 10**6} megapixels: reduce it first")
    Image.init()  # older Pillows have no AVIF
    try:
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as picture:
            if picture.width * picture.height > LARGEST:
                raise too_large
            return upright_rgb(picture)
    except (OSError, ValueError):
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception as error:  # Pillow's readers raise many types for a damaged file
        raise ValueError(str(error) or type(error).__name__) from error


def upright_rgb(picture: Image.Image, longest: int = LONGEST_SIDE) -> Image.Image:
    """An opened picture as 8-bit RGB, turned as its EXIF tag says, its longer side at most `longest` px.

    16-bit grey is scaled to 8 bits (v / 257). Transparent places become grey: the colours below them are not meant to be
    seen, and may show somebody else.
    """
    if (share := longest / max(picture.size)) < 1:
        picture.draft(
            None, (round(picture.width * share), round(picture.height * share))
        )  # JPEG: decodes less
        smooth = not picture.mode.startswith("I")  # 16-bit grey cannot be averaged
        kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        picture.thumbnail((longest, longest), kind, reducing_gap=2.0 if smooth else None)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # convert() would clip values above 255 to white
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        grey = Image.new("RGBA", picture.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
        picture = Image.alpha_composite(grey, picture.convert("RGBA"))
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
