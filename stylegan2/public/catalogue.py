"""Catalogue of the public weights that this project can use: source, hash, size, terms and citation of each.

None of them ships with the project; scripts/download_weights.py fetches one on request. Only hashes with a known source
are listed: full ones are stated alike by several mirrors or users of the file, short ones are part of the file's name (the convention
of torch.hub). None means that the hash is unknown.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from stylegan2.weights import WeightsError, file_hash

FOLDER = "TALKING_HEADS_WEIGHTS"  # environment variable with a folder of weight files, for use offline
NONCOMMERCIAL = "non-commercial research (NVIDIA's terms and FFHQ's)"
STYLEGAN2 = "Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020"
LPIPS = "Zhang et al., The Unreasonable Effectiveness of Deep Features, CVPR 2018"


@dataclass(frozen=True)
class Entry:
    """One public weight file."""

    file: str  # name on disk
    what: str
    url: str
    licence: str
    citation: str
    sha256: str | None = None  # in hex, or the first digits of it
    megabytes: int | None = None  # about


def _drive(key: str) -> str:
    return f"https://drive.usercontent.google.com/download?id={key}&export=download&confirm=t"


CATALOGUE = {
    "stylegan2_ffhq": Entry(
        "ffhq.pkl",
        "StyleGAN2 generator, FFHQ, 1024 px",
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/ffhq.pkl",
        NONCOMMERCIAL,
        STYLEGAN2,
        sha256="a205a346e86a9ddaae702e118097d014b7b8bd719491396a162cca438f2f524c",
        megabytes=382,
    ),
    "stylegan2_ffhq_256": Entry(
        "stylegan2-ffhq-256x256.pkl",
        "StyleGAN2 generator, FFHQ, 256 px",
        "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan2/versions/1/files/stylegan2-ffhq-256x256.pkl",
        NONCOMMERCIAL,
        STYLEGAN2,
    ),
    "e4e_ffhq": Entry(
        "e4e_ffhq_encode.pt",
        "e4e encoder and its decoder, FFHQ",
        _drive("1cUv_reLE6k3604or78EranS7XzuVMWeO"),
        f"code MIT; weights {NONCOMMERCIAL}",
        "Tov et al., Designing an Encoder for StyleGAN Image Manipulation, SIGGRAPH 2021",
        sha256="2ace1d9a8c05c10a399bcd500b8dda118f759ff1aac89dbdab7435f2136a0999",
        megabytes=1202,
    ),
    "psp_ffhq": Entry(
        "psp_ffhq_encode.pt",
        "pSp encoder and its decoder, FFHQ",
        _drive("1bMTNWkh5LArlaWSc_wa8VKyq2V42T2z0"),
        f"code MIT; weights {NONCOMMERCIAL}",
        "Richardson et al., Encoding in Style, CVPR 2021",
        megabytes=1200,
    ),
    "ir_se50": Entry(
        "model_ir_se50.pth",
        "IR-SE50 face embedding (ArcFace)",
        _drive("1KW7bjndL3QG3sxBbZxreGHigcCCpsDgn"),
        "code MIT; trained on MS-Celeb-1M: non-commercial research",
        "Deng et al., ArcFace, CVPR 2019",
        sha256="a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
        megabytes=175,
    ),
    "lpips_alex": Entry(
        "alexnet-owt-7be5be79.pth",
        "LPIPS trunk (alex)",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "BSD-3; ImageNet's own terms",
        LPIPS,
        sha256="7be5be79",
        megabytes=233,
    ),
    "lpips_vgg": Entry(
        "vgg16-397923af.pth",
        "LPIPS trunk (vgg)",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "BSD-3; ImageNet's own terms",
        LPIPS,
        sha256="397923af",
        megabytes=528,
    ),
    "inception_fid": Entry(
        "pt_inception-2015-12-05-6726825d.pth",
        "FID (Inception of pytorch-fid)",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "Apache-2.0",
        "Heusel et al., GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017",
        sha256="6726825d",
        megabytes=91,
    ),
    "i3d_fvd": Entry(
        "i3d_torchscript.pt",
        "FVD (I3D, Kinetics-400, TorchScript)",
        "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
        "none stated by its authors; a copy on the Hugging Face hub says MIT; Kinetics' own terms",
        "Carreira and Zisserman, Quo Vadis, Action Recognition?, CVPR 2017; ported by Skorokhodov et al., StyleGAN-V, CVPR 2022",
        sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        megabytes=51,
    ),
    "syncnet": Entry(
        "syncnet_v2.model",
        "SyncNet (LSE-D, LSE-C)",
        "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
        "research; see the VGG page",
        "Chung and Zisserman, Out of Time, ACCV workshops 2016",
        sha256="961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
        megabytes=55,
    ),
    "face_alignment": Entry(
        "2DFAN4-11f355bf06.pth.tar",
        "68 landmarks (face-alignment)",
        "https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
        "BSD-3; trained on 300-W: non-commercial",
        "Bulat and Tzimiropoulos, How Far Are We from Solving Face Alignment, ICCV 2017",
        sha256="11f355bf06",
    ),
    "face_detector": Entry(
        "s3fd-619a316812.pth",
        "face detector of face-alignment",
        "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth",
        "BSD-3",
        "Zhang et al., S3FD, ICCV 2017",
        sha256="619a316812",
        megabytes=90,
    ),
}


def entry_of(name: str) -> Entry:
    """The entry of that name. Raises WeightsError if there is none."""
    if name not in CATALOGUE:
        raise WeightsError(
            f"There is no {name!r} in the catalogue of public weights: {', '.join(CATALOGUE)}."
        )
    return CATALOGUE[name]


def folders() -> list[Path]:
    """Folders that are searched for files: that of TALKING_HEADS_WEIGHTS, if set, then torch's hub cache."""
    own = os.environ.get(FOLDER)
    return [*([Path(own).expanduser()] if own else []), Path(torch.hub.get_dir()) / "checkpoints"]


def path_of(name: str) -> Path:
    """The path of the file; if it is missing, the path at which to store it."""
    places = [folder / entry_of(name).file for folder in folders()]
    return next((place for place in places if place.is_file()), places[0])


def demanded(name: str, what: str, path: str | Path | None = None) -> Path:
    """The file of an entry, by default at path_of(name). Raises WeightsError, which says how to get it, if it is missing."""
    path = path_of(name) if path is None else Path(path)
    if not path.is_file():
        raise WeightsError(
            f"no {what} weights at {path}: python scripts/download_weights.py entry={name}, or put "
            f"{entry_of(name).file} there"
        )
    return path


def state_of(name: str) -> str:
    """ "missing", "verified", "there, hash unknown" or "WRONG HASH"; the last three with the first digits of the
    hash.
    """
    path, expected = path_of(name), entry_of(name).sha256
    if not path.is_file():
        return "missing"
    digest = file_hash(path)
    if expected is None:
        return f"there, hash unknown {digest[:12]}"
    return f"{'verified' if digest.startswith(expected) else 'WRONG HASH'} {digest[:12]}"
