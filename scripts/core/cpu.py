"""What Linux says about the processor."""

import re
from pathlib import Path

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # names of bfloat16 instruction sets in /proc/cpuinfo


def cpu_field(name: str) -> str:
    """A field of the first processor in Linux's /proc/cpuinfo, or ""."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    field = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
    return field[1] if field else ""


def cpu_has_bf16() -> bool:
    """Whether the processor has instructions for bfloat16; without them it is emulated, which is slow."""
    return bool(BF16_FLAGS & {*cpu_field("flags").split(), *cpu_field("Features").split()})
