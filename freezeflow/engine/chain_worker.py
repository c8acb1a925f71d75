"""A worker's side of a cluster: runs one model's chain, its steps in processes of their own.

Whatever pool it is (Dask, or another), a worker imports this module and calls `run_chain`. No step runs in
the worker's own process, so what kills a step never kills the worker, and no other chain. The processes
stay for the worker's next chain: TensorFlow is loaded once a worker.
"""

from __future__ import annotations

import atexit
import functools
import tempfile
import threading
from pathlib import Path
from typing import Any

from freezeflow.engine.chain_orders import ChainResult, read_order, this_machine
from freezeflow.engine.events import Event, RunWarned, StepWarned
from freezeflow.engine.executors import LocalExecutor
from freezeflow.engine.orders import Ended, Work
from freezeflow.engine.run import run_plans
from freezeflow.installed import version_of
from freezeflow.store.files import remove_tree
from freezeflow.store.store import Store
from freezeflow.values import Json
from freezeflow.version import VERSION


def probe(packages: list[str]) -> dict[str, Any]:
    """What a worker is: its machine, freezeflow's version, and those of the packages of some keys."""
    versions = {name: version_of(name) for name in packages}
    return {"machine": this_machine(), "versions": {**versions, "freezeflow": VERSION}}


def run_chain(order: Json) -> dict[str, Any]:
    """Runs a plan; returns a `ChainResult` as plain data.

    Args:
        order: From `chain_order`.

    Raises:
        FreezeflowError: The worker's cache cannot be used.
    """
    plan, cache_dir, options = read_order(order)
    warnings: list[tuple[str, str]] = []

    def hear(event: Event) -> None:
        if isinstance(event, StepWarned):
            warnings.append((event.ref.step, event.message))
        elif isinstance(event, RunWarned):
            warnings.append(("", event.message))

    store = Store.open(cache_dir)
    try:
        result = run_plans([plan], store, options, hear, _take_executor)
    finally:
        store.close()
    return ChainResult(steps=result.steps, warnings=tuple(warnings)).to_data()


class StayingExecutor(LocalExecutor):
    """Whose processes stay for the next chain; what still runs at the end of one is ended."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, apart=True)
        self._running = 0

    def start(self, work: Work) -> None:
        self._running += 1
        super().start(work)

    def wait(self, seconds: float | None = None) -> list[Ended]:
        ended = super().wait(seconds)
        self._running -= len(ended)
        return ended

    def stop(self) -> None:
        if self._running:
            self.end()
        with _LOCK:
            _IDLE.append(self)

    def end(self) -> None:
        """Ends its processes; they start anew when they are needed."""
        self._running = 0
        super().stop()


# Executors that no chain is using; a worker with several threads has several.
_LOCK = threading.Lock()
_IDLE: list[StayingExecutor] = []


def _take_executor(folder: Path, *, apart: bool) -> LocalExecutor:
    with _LOCK:
        return _IDLE.pop() if _IDLE else StayingExecutor(Path(tempfile.mkdtemp(dir=_folder())))


@functools.cache
def _folder() -> Path:
    """Where this worker's processes write what they print."""
    folder = Path(tempfile.mkdtemp(prefix="freezeflow-worker-"))
    atexit.register(_clean_up, folder)
    return folder


def _clean_up(folder: Path) -> None:
    for executor in _IDLE:
        executor.end()
    remove_tree(folder)
