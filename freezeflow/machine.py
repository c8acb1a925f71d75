"""What TensorFlow's graph optimiser depends on of this machine, and how much memory is free."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

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
    return min([free, *(left for left in _left_in_groups() if left > 0)])


def out_of_memory_kills() -> int:
    """How many processes the kernel has ended since it started, because there was no memory."""
    with contextlib.suppress(OSError), open("/proc/vmstat") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _left_in_groups() -> Iterator[int]:
    """What is left of each limit of this process's control groups (of versions 1 and 2)."""
    with contextlib.suppress(OSError), open("/proc/self/cgroup") as file:
        for line in file:
            number, controllers, path = line.rstrip("\n").split(":", 2)
            if number == "0":
                root, most, now = "", "memory.max", "memory.current"
            elif "memory" in controllers.split(","):
                root, most, now = "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            else:
                continue
            # In a container the group's own path is not there, and the root is the group.
            for folder in {f"/sys/fs/cgroup{root}{path}".rstrip("/"), f"/sys/fs/cgroup{root}"}:
                yield _number(f"{folder}/{most}") - _number(f"{folder}/{now}")


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
