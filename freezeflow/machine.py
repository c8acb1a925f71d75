"""What TensorFlow's graph optimiser depends on of this machine, and how much memory is free."""

from __future__ import annotations

import contextlib
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


def available_bytes() -> int:
    """How much memory may still be taken, on this machine and in this control group."""
    free = field("/proc/meminfo", "MemAvailable")
    group = _number("/sys/fs/cgroup/memory.max") - _number("/sys/fs/cgroup/memory.current")
    return min(free, group) if group > 0 else free


def field(path: str, name: str) -> int:
    """A figure in kilobytes of a file of the kernel's, in bytes; 0 where there is none."""
    with contextlib.suppress(OSError), open(path) as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def _number(path: str) -> int:
    with contextlib.suppress(OSError, ValueError), open(path) as file:
        return int(file.read())
    return 0
