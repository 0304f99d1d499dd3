"""What Linux says about the processor."""

import re
from pathlib import Path

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # names of bfloat16 instruction sets in /proc/cpuinfo


def computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; others emulate them, which is slower than float32."""
    return bool(BF16_FLAGS & {*cpu_field("flags").split(), *cpu_field("Features").split()})


def cpu_field(name: str) -> str:
    """A field of the first processor in /proc/cpuinfo, or ""."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    field = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
    return field[1] if field else ""
