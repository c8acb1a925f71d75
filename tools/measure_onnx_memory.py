"""Prints the table of memory that an export to ONNX takes in ``docs/formats.md``, as measured here and now.

Run it as ``python -m tools.measure_onnx_memory [GIGABYTES ...]``. Each model is half a table for Gather
and half matrices of 1024 x 1024, every second one used transposed. It is exported with the weights where
`external_data` puts them, unchecked, and converted by tf2onnx alone from the SavedModel. Memory is the most
that one of its processes has of its own (what it maps from files does not count), looked at 50 times a
second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# A process that has more is ended, and so is what takes longer.
LIMIT_BYTES = 10e9
LIMIT_SECONDS = 300

WIDTH = 1024


class Run(NamedTuple):
    """A command's run.

    Args:
        done: Whether it came to its end without a fault.
        seconds: Wall clock.
        peak: The most memory that one process had of its own, in bytes.
    """

    done: bool
    seconds: float
    peak: float


def main() -> None:
    """Measures, a row a model."""
    sizes = [*map(float, sys.argv[1:])] or [0.67, 1.34, 2.32]
    print("| weights | `auto` | `always` | tf2onnx by hand |\n| --- | --- | --- | --- |")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder, "m")
            build = [sys.executable, "-m", "tools.measure_onnx_memory", "build", str(model)]
            subprocess.run([*build, str(size)], check=True, stderr=subprocess.DEVNULL)
            cells = [_cell(_export(model, data)) for data in ("auto", "always")]
            tf2onnx = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(model)]
            cells.append(_cell(_watched([*tf2onnx, "--output", f"{folder}/m.onnx"], {})))
        print(f"| {size} GB | {' | '.join(cells)} |", flush=True)


def build(folder: Path, size: float) -> None:
    """Saves a model with so many gigabytes of float32."""
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(3)
    count = max(2, round(size * 1e9 / 2 / (4 * WIDTH**2)))
    rows = round(size * 1e9 / (4 * WIDTH)) - count * WIDTH

    class Layers(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = tf.Variable(random.random((rows, WIDTH), np.float32))
            scaled = (random.random((WIDTH, WIDTH), np.float32) / WIDTH for _ in range(count))
            self.matrices = [tf.Variable(values) for values in scaled]

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="row")])
        def serve(self, row: tf.Tensor) -> dict[str, tf.Tensor]:
            y = tf.gather(self.table, row)
            for place, matrix in enumerate(self.matrices):
                y = tf.matmul(y, matrix, transpose_b=place % 2 == 1)
            return {"y": y}

    made = Layers()
    tf.saved_model.save(made, str(folder), signatures=made.serve)


def _export(model: Path, external_data: str) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "freezeflow.toml").touch()
        export = {"to": "m.onnx", "format": "onnx", "external_data": external_data, "check": False}
        stages = ["load", "freeze", "strip", {"export": export}]
        told = {"version": 1, "model": {"saved_model": str(model)}, "stages": stages}
        recipe = Path(folder, "r.yaml")
        recipe.write_text(json.dumps(told))
        command = [sys.executable, "-m", "freezeflow", "run", str(recipe)]
        return _watched(command, {"FREEZEFLOW_CACHE_DIR": f"{folder}/cache"})


def _watched(command: Sequence[str], environment: dict[str, str]) -> Run:
    """Runs a command, and ends it where a limit is passed."""
    started = time.perf_counter()
    peak = 0
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.02):
                peak = max([peak, *map(_own_bytes, _family(process.pid))])
                if peak > LIMIT_BYTES or time.perf_counter() - started > LIMIT_SECONDS:
                    os.killpg(process.pid, signal.SIGKILL)
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        ended.set()
        watcher.join()
    return Run(code == 0, time.perf_counter() - started, peak)


def _family(process: int) -> Iterator[int]:
    """A process and all that it, and they, have started."""
    yield process
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def _own_bytes(process: int) -> int:
    """The memory that a process has of its own; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    told = [line.split() for line in lines if line.startswith("RssAnon:")]
    return int(told[0][1]) * 1024 if told else 0


def _cell(run: Run) -> str:
    text = f"{run.peak / 1e9:.2f} GB, {run.seconds:.0f} s"
    return text if run.done else f"ended after {text}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
