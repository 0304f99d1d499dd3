"""Seconds of rival implementations, and what this machine can do at best: what benchmark.py measures with."""

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from configs.schema import BenchmarkConfig

PEAK_SIDE = (
    2048  # of the square matrices whose product is the peak: 48 MB of float32, more than a core's cache
)
FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_fp16",
    "asimd",
    "bf16",
    "sve",
)
NATIVE = {"bfloat16": {"avx512_bf16", "amx_bf16", "bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}


def medians(
    rivals: Mapping[str, Callable[[], Any]], settings: BenchmarkConfig, device: torch.device
) -> dict[str, float]:
    """Median seconds of each rival. They run in turn, so that a busy moment hits all; the first round is not counted.

    clock "cpu" counts the processor time of all threads instead of the wall clock's: for one thread on a busy machine.
    """
    clock = time.process_time if settings.clock == "cpu" else time.perf_counter
    wait = torch.get_device_module(device).synchronize
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(settings.repeats + 1):
        for name, run in rivals.items():
            wait()
            started = clock()
            run()
            wait()
            seconds[name].append(clock() - started)
    return {name: median(taken[1:]) for name, taken in seconds.items()}


def thread_counts(settings: BenchmarkConfig) -> list[int]:
    """The counts to measure with; 0 stands for all cores."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({count or available for count in settings.threads})


def peak(precision: str, settings: BenchmarkConfig, device: torch.device) -> float:
    """Floating-point operations a second of a large square matrix product, with as many threads as are set."""
    a, b = torch.randn(2, PEAK_SIDE, PEAK_SIDE, device=device).to(getattr(torch, precision))
    return 2 * PEAK_SIDE**3 / medians({"product": lambda: a @ b}, settings, device)["product"]


def operations(run: Callable[[], Any]) -> int:
    """2 x multiply-adds of every convolution and matrix product that `run` makes, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def refusal(precision: str, device: torch.device) -> str | None:
    """Why a precision is not worth measuring here, or None."""
    if precision == "float32" or device.type != "cpu" or NATIVE[precision] & set(instruction_sets()):
        return None
    return f"this CPU has no {precision} arithmetic ({', '.join(sorted(NATIVE[precision]))}): it would be emulated"


def snr_db(found: torch.Tensor, true: torch.Tensor) -> float | None:
    """10 log10 of the power of the true image over that of the error; None if they are equal."""
    error = (found - true).double().square().sum().item()
    return 10 * math.log10(true.double().square().sum().item() / error) if error else None


def describe(device: torch.device) -> dict[str, Any]:
    """The machine that figures belong to."""
    found = {"cpu": cpu_model(), "instruction_sets": instruction_sets(), "cores": os.cpu_count()}
    found |= {"system": platform.system(), "libc": " ".join(platform.libc_ver()), "device": str(device)}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """Those of FLAGS that the CPU has, as Linux names them; elsewhere what torch was built to use."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return [flag for flag in FLAGS if flag in flags] or [torch.backends.cpu.get_cpu_capability()]


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")
