"""What it costs to use a frozen graph, by where its weights are: load, first call, memory of two."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from bench.groups import CLI, Sizes
from bench.page import Table

WAYS = ("inline", "external")

_NOTE = "Memory is the proportional share (Pss) of one process, and of two at once."


def serving(folder: Path, model: Path, gigabytes: float, sizes: Sizes) -> Table:
    """A row for each way: medians, in seconds; memory that two processes at once take for the weights."""
    files = {way: _frozen(model, folder / f"served-{way}.pb", way) for way in WAYS}
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(max(1, sizes.rounds // 2)):
        for way in WAYS:
            found[way].append(_two_processes(files[way]))
    rows: list[dict[str, str | int | float]] = [
        {"weights": way, **{key: _median(runs, key) for key in runs[0]}}
        for way, runs in found.items()
    ]
    return Table(f"using a frozen graph of {gigabytes:g} GB", _NOTE, rows)


def one_process(folder: Path, models: dict[str, Path]) -> Table:
    """Graphs whose weights no file can hold, used from the files beside them."""
    rows: list[dict[str, str | int | float]] = []
    for name, model in models.items():
        process = _start(_frozen(model, folder / "one" / "large.pb", "external"))
        figures = _line(process.stdout)
        megabytes = _memory(process) / 1e6
        process.communicate("")
        times = {key: round(figures[key], 3) for key in ("load_s", "first_call_s")}
        rows.append({"model": name, **times, "one_mb": megabytes})
        shutil.rmtree(folder / "one")
    note = "Weights are external; memory is the process's proportional share (Pss), mapped weights included."
    return Table("using frozen graphs beyond 2 GB", note, rows)


def _frozen(model: Path, to: Path, weights: str) -> Path:
    command = [CLI, "freeze", str(model), "-o", str(to), "--weights", weights]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return to


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
