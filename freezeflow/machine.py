"""What of this machine can change what TensorFlow's graph optimiser makes of a graph."""

from __future__ import annotations

import functools
import os

from freezeflow.values import Digest

_CPUINFO = "/proc/cpuinfo"
# The first processor's entry is shorter; large machines have hundreds of them.
_FIRST_ENTRY = 8192
_MODEL_FIELDS = ("model name", "CPU part")
_FLAG_FIELDS = ("flags", "Features")


@functools.cache
def machine_facts() -> str:
    """Architecture, processor, its instruction sets as a digest, and the number of cores, in one line."""
    fields = _first_processor()
    model = next((fields[key] for key in _MODEL_FIELDS if key in fields), "unknown processor")
    flags = next((fields[key] for key in _FLAG_FIELDS if key in fields), "")
    sets = Digest.of(" ".join(sorted(flags.split())).encode()).hex[:16]
    return f"{os.uname().machine}, {model}, instruction sets {sets}, {os.cpu_count()} cores"


def _first_processor() -> dict[str, str]:
    try:
        with open(_CPUINFO, encoding="utf-8", errors="replace") as file:
            text = file.read(_FIRST_ENTRY).partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
