"""Images with the W+ codes from which they were rendered: training data of the image head, of encoders and of the
viseme basis.

Shapes: N images, L rows of W+, D = 512, R px.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylegan2.images import resize, to_tensor, to_uint8
from stylegan2.protocol import Generator, repeat_rows
from stylegan2.weights import atomic_path

# What numpy and tarfile raise for a file that is missing, of another kind or cut short
_DAMAGED = (OSError, ValueError, KeyError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
SHARD = 480  # pairs in one tar file, a multiple of the usual group sizes


class TrainingImagesError(ValueError):
    """A folder of training images that cannot be used; the message names the folder and the remedy."""


class FolderPairs:
    """The pairs in a folder: faces-NNN.tar (JPEGs in the order of their codes) beside w-NNN.npz (key w, [n, L, D])."""

    def __init__(self, root: str | Path):
        tars = sorted(Path(root).glob("faces-*.tar"))
        if not tars:
            raise TrainingImagesError(
                f"{root} has no faces-NNN.tar: give a folder of pairs, or leave pairs.folder out to sample them."
            )
        codes: list[np.ndarray] = []
        self.jpegs: list[bytes] = []
        for tar in tars:
            w_file = tar.with_name(tar.name.replace("faces-", "w-")).with_suffix(".npz")
            try:
                codes.append(np.load(w_file)["w"])
                with tarfile.open(tar) as file:
                    members = sorted((m for m in file if m.isfile()), key=lambda m: m.name)
                    self.jpegs += [file.extractfile(m).read() for m in members]  # type: ignore[union-attr]
            except _DAMAGED as error:
                raise TrainingImagesError(
                    f"{tar} or {w_file.name} beside it is missing or damaged ({error}): make the pairs again."
                ) from error
        self.w_NLD = np.concatenate(codes)
        if len(self.w_NLD) != len(self.jpegs):
            raise TrainingImagesError(
                f"{root} has {len(self.jpegs)} images but {len(self.w_NLD)} codes: make the pairs again."
            )

    def __len__(self) -> int:
        return len(self.jpegs)

    def images(self, indices: np.ndarray) -> Tensor:
        """[n] -> float images [n, 3, R, R] in [-1, 1]."""
        return to_tensor(np.stack([np.asarray(Image.open(io.BytesIO(self.jpegs[i]))) for i in indices]))

    def codes(self, indices: np.ndarray) -> Tensor:
        """[n] -> float32 [n, L, D]."""
        return torch.from_numpy(self.w_NLD[indices].astype(np.float32))


@torch.no_grad()
def draw_codes(
    generator: Generator,
    n: int,
    rng: np.random.Generator,
    psi: tuple[float, float] = (0.5, 1.0),
    mixing: float = 0.4,
) -> Tensor:
    """W+ codes [n, L, D], truncated by a psi that is uniform in its range.

    mixing: probability of style mixing, where the rows from a random one on are those of a second w.
    """
    z = torch.from_numpy(rng.standard_normal((2 * n, generator.w_dim), dtype=np.float32))
    w = generator.mapping(z.to(generator.w_avg.device))
    scale = torch.from_numpy(rng.uniform(*psi, size=(2 * n, 1)).astype(np.float32)).to(w)
    w = repeat_rows(generator.w_avg + scale * (w - generator.w_avg), generator.num_rows)
    cut = np.where(rng.random(n) < mixing, rng.integers(1, generator.num_rows, n), generator.num_rows)
    later = torch.arange(generator.num_rows)[None, :] >= torch.from_numpy(cut)[:, None]
    return torch.where(later[:, :, None].to(w.device), w[n:], w[:n])


def extend_rows(w_NLD: Tensor, rows: int) -> Tensor:
    """Repeats the last row until there are `rows`, as a generator of a higher resolution reads more rows."""
    return torch.cat([w_NLD, w_NLD[:, -1:].expand(-1, rows - w_NLD.shape[1], -1)], dim=1)


@torch.no_grad()
def render_codes(generator: Generator, w_NLD: Tensor, size: int, chunk: int = 4) -> Tensor:
    """W+ of at most num_rows rows -> images resized to `size` px, [N, 3, size, size] in [-1, 1]."""
    images = [
        resize(generator.synthesis(extend_rows(w, generator.num_rows)), size).clamp(-1, 1)
        for w in w_NLD.split(chunk)
    ]
    return torch.cat(images)


def batches(indices: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless shuffled batches of indices."""
    while True:
        order = rng.permutation(indices)
        yield from (order[i : i + size] for i in range(0, len(order) - size + 1, size))


def write_pairs(root: str | Path, number: int, images: np.ndarray, codes: np.ndarray) -> None:
    """Writes one shard that `FolderPairs` reads: images uint8 [n, R, R, 3] as JPEG, codes [n, L, D] as float16."""
    root = Path(root)
    with atomic_path(root / f"w-{number:03d}.npz") as temporary:
        np.savez(temporary, w=codes.astype(np.float16))
    with atomic_path(root / f"faces-{number:03d}.tar") as temporary, tarfile.open(temporary, "w") as tar:
        for i, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
            entry = tarfile.TarInfo(f"{i:06d}.jpg")
            entry.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(entry, buffer)


def make_pairs(
    folder: Path,
    count: int,
    draw: Callable[[int], Tensor],
    generator: Generator,
    size: int,
    shard: int = SHARD,
) -> Iterator[int]:
    """Fills a folder with `count` pairs, codes by draw(n), images by the generator; yields the number of each shard.

    Existing shards are kept. Their codes are drawn all the same, so that later shards get the same random numbers.
    """
    for number, start in enumerate(range(0, count, shard)):
        codes = draw(min(shard, count - start))
        if not (folder / f"faces-{number:03d}.tar").is_file():
            images = np.concatenate([to_uint8(render_codes(generator, w, size)) for w in codes.split(16)])
            write_pairs(folder, number, images, codes.cpu().numpy())
        yield number
