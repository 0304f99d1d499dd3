"""The speed of one synthesis: ours, the formulation that public repositories share, and the package stylegan2-torch.

Shapes: N images, L rows of W+, D latent width.
"""

import copy
import importlib.util
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from configs.schema import BenchmarkConfig
from scripts.core.provenance import ROOT
from scripts.core.runtime import RunError, threads
from scripts.stages.benchmark_timing import medians, operations, peak, refusal, snr_db, thread_counts
from stylegan2.load import load_generator
from stylegan2.networks.generator import StyleGAN2
from stylegan2.networks.layers import SynthesisLayer
from stylegan2.protocol import sample_w

ORACLE = ROOT / "tests" / "reference_synthesis.py"
Synthesis = Callable[[Tensor], Tensor]
Row = dict[str, Any]


@cache
def reference() -> Callable[[StyleGAN2, Tensor], Tensor]:
    """tests/reference_synthesis.py, by its path; RunError in a copy of the project without tests/."""
    spec = importlib.util.spec_from_file_location("reference_synthesis", ORACLE)
    if spec is None or spec.loader is None or not ORACLE.is_file():
        raise RunError(
            f"There is no {ORACLE}: the benchmark compares with the formulation in it, so run it in a whole checkout."
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reference_synthesis


def a_generator(resolution: int, device: torch.device) -> StyleGAN2:
    """Config F with random weights and audible noise: its speed and parity are those of trained weights."""
    torch.manual_seed(0)
    generator = StyleGAN2(resolution)
    for layer in generator.modules():
        if isinstance(layer, SynthesisLayer):
            torch.nn.init.constant_(layer.noise_strength, 0.1)
    return generator.to(device).eval().requires_grad_(False)


def peer(resolution: int, device: torch.device) -> tuple[Synthesis | None, str | None]:
    """The synthesis of the package stylegan2-torch, as drawn at random, or why there is none."""
    try:
        from stylegan2_torch import Generator  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return None, "stylegan2-torch is not installed"
    except Exception as error:  # it compiles CUDA code while it is imported: whatever that raises
        return None, f"stylegan2-torch cannot be imported here ({type(error).__name__}: {str(error)[:80]})"
    network = Generator(resolution).to(device).eval().requires_grad_(False)
    return lambda w_NLD: network([w_NLD], input_type="w_plus"), None


@torch.inference_mode()
def synthesis_rows(settings: BenchmarkConfig, device_name: str, allocator: str) -> list[Row]:
    """One row for each network, batch, thread count and precision, in this process."""
    device = torch.device(device_name)
    rows: list[Row] = []
    for resolution in settings.sizes:
        rows += _rows_of("config_f", a_generator(resolution, device), settings, device)
    if settings.embedded:
        rows += _rows_of("embedded", load_generator("embedded", device), settings, device)
    return [{**row, "allocator": allocator} for row in rows]


def _rows_of(name: str, generator: Any, settings: BenchmarkConfig, device: torch.device) -> list[Row]:
    true: Synthesis | None = None
    theirs, why = None, "stylegan2-torch has no such network"
    if isinstance(generator, StyleGAN2):
        true = partial(reference(), generator)
        theirs, why = peer(generator.resolution, device)
    rows: list[Row] = []
    for batch, count in product(settings.batches, thread_counts(settings)):
        w_NLD = sample_w(generator, batch, seed=0)
        refused = {p: reason for p in settings.precisions if (reason := refusal(p, device)) is not None}
        ours = {p: partial(computed_in, generator, w_NLD, p) for p in settings.precisions if p not in refused}
        rivals: dict[str, Callable[[], Any]] = dict(ours)
        rivals |= {"reference": partial(true, w_NLD)} if true else {}
        rivals |= {"peer": partial(theirs, w_NLD)} if theirs else {}
        work = nominal_operations(generator, w_NLD)
        with threads(count):
            seconds = medians(rivals, settings, device)
            peaks = {p: peak(p, settings, device) for p in ours}
        base = {"generator": name, "resolution": generator.resolution, "batch": batch, "threads": count}
        exact = true(w_NLD) if true else None
        for p in settings.precisions:
            reasons = {"ratio_to_peer": why} if theirs is None else {}
            reasons |= {} if true else {"ratio_to_reference": "no other formulation of this network is here"}
            row: Row = base | dict.fromkeys(("frames_per_s", "ratio_to_reference", "ratio_to_peer"))
            row |= {
                "precision": p,
                "max_abs": None,
                "snr_db": None,
                "share_of_peak": None,
                "reasons": reasons,
            }
            if p in refused:
                reasons["frames_per_s"] = refused[p]
            else:
                row["frames_per_s"] = batch / seconds[p]
                row["share_of_peak"] = work / seconds[p] / peaks[p]
                for rival in ("reference", "peer"):
                    row[f"ratio_to_{rival}"] = seconds[rival] / seconds[p] if rival in seconds else None
                if exact is not None and p == "float32":
                    row["max_abs"] = (ours[p]() - exact).abs().max().item()
                elif exact is not None:
                    row["snr_db"] = snr_db(ours[p](), exact)
            rows.append(row)
    return rows


def computed_in(generator: Any, w_NLD: Tensor, precision: str) -> Tensor:
    generator.compute_in(None if precision == "float32" else getattr(torch, precision))
    return generator.synthesis(w_NLD)


@torch.no_grad()
def nominal_operations(generator: Any, w_NLD: Tensor) -> int:
    """Of the simple formulation, counted on tensors without content: what a faster algorithm saves is not taken off."""
    with torch.inference_mode(False):
        empty = copy.deepcopy(generator).to("meta")
        return operations(lambda: empty.synthesis(torch.empty(w_NLD.shape, device="meta")))
