"""What it costs to use a frozen graph, by where its weights are: load, first call, memory of two."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from bench.groups import CLI, Sizes

WAYS = ("inline", "external")


def serving(folder: Path, model: Path, sizes: Sizes) -> list[dict[str, object]]:
    """A row for each way: medians, in seconds; memory that two processes at once take for the weights."""
    files = {}
    for way in WAYS:
        files[way] = folder / f"served-{way}.pb"
        command = [CLI, "freeze", str(model), "-o", str(files[way]), "--weights", way]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(max(1, sizes.rounds // 2)):
        for way in WAYS:
            found[way].append(_two_processes(files[way]))
    return [
        {"weights": way, **{key: _median(runs, key) for key in runs[0]}}
        for way, runs in found.items()
    ]


def _median(runs: list[dict[str, float]], key: str) -> float:
    return round(statistics.median(run[key] for run in runs), 3)


def _two_processes(file: Path) -> dict[str, float]:
    first = _start(file)
    figures = _line(first.stdout)
    alone = _memory(first)
    second = _start(file)
    _line(second.stdout)
    both = _memory(first) + _memory(second)
    for process in (first, second):
        process.communicate("")
    megabytes = {"one_mb": alone / 1e6, "two_mb": both / 1e6}
    return {"load_s": figures["load_s"], "first_call_s": figures["first_call_s"], **megabytes}


def _start(file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.mapped", str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _line(stream: IO[str] | None) -> Any:
    assert stream is not None
    return json.loads(stream.readline())


def _memory(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(_line(process.stdout)["pss_bytes"])
