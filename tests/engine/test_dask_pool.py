"""Chains on a real Dask scheduler with two worker processes, and with kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freezeflow import api
from freezeflow.engine import chains
from freezeflow.engine.chains import run_on_pool
from freezeflow.engine.options import RunOptions
from freezeflow.engine.pools import PoolFailed
from freezeflow.engine.run import run_plans
from freezeflow.errors import UsageError
from freezeflow.store import upkeep
from freezeflow.store.store import Store
from tests.engine.conftest import install_plugin
from tests.engine.test_chains import DONE, GOOD, ends, plans
from tests.store.remote.servers import free_port

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


class Cluster:
    """A scheduler, and workers that come and go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._path = os.pathsep.join([str(install_plugin(folder / "workers")), str(ROOT)])
        self.port = free_port()
        self.scheduler = self._start(
            "scheduler", "--port", str(self.port), "--no-dashboard", "--host", "127.0.0.1"
        )

    @property
    def address(self) -> str:
        return f"dask://127.0.0.1:{self.port}"

    def add_worker(self, *more: str) -> subprocess.Popen[bytes]:
        words = (f"127.0.0.1:{self.port}", "--nthreads", "1", "--no-dashboard", *more)
        return self._start("worker", *words)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()

    def wait_for_workers(self, count: int) -> None:
        from distributed import Client

        with Client(f"tcp://127.0.0.1:{self.port}", timeout=60) as client:
            client.wait_for_workers(count, timeout=60)

    def wait_until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Waits until something holds of the workers as the scheduler sees them."""
        from distributed import Client

        with Client(f"tcp://127.0.0.1:{self.port}", timeout=60) as client:
            end = time.monotonic() + 60
            while not holds(list(client.scheduler_info(n_workers=-1)["workers"].values())):
                assert time.monotonic() < end, "the workers are not as expected"
                time.sleep(0.1)

    def _start(self, kind: str, *words: str) -> subprocess.Popen[bytes]:
        log = open(self._folder / f"{kind}-{len(self._processes)}.log", "wb")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + kind, *words],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": self._path, "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=self._folder,
        )
        log.close()
        self._processes.append(process)
        return process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers; one has a licence."""
    made = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        made.add_worker("--resources", "LICENCE=1")
        made.add_worker()
        made.wait_for_workers(2)
        yield made
    finally:
        made.stop()


def test_chains_run_on_workers(folder: Path, store: Store, cluster: Cluster) -> None:
    models = {f"m{number}": {} for number in range(12)}
    result = run_on_pool(plans(folder, models), store, RunOptions(), cluster.address)
    assert all(states[1:] == DONE[1:] for states in ends(result).values())
    assert len(list((folder / "build").glob("*.pb"))) == 12
    assert upkeep.verify(store) == []
    again = run_on_pool(plans(folder, models), store, RunOptions(), "dask://nowhere:1")
    assert {step.status for step in again.steps} == {"cached"}


def test_tensorflow_runs_on_workers(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folding and the proof, in subprocesses of the workers; the same bytes as without them."""
    shutil.copytree(ROOT / "pipelines" / "digits", tmp_path / "digits")
    shutil.copy(ROOT / "pipelines" / "digits.yaml", tmp_path)
    result = api.run(
        tmp_path / "digits.yaml", executor=cluster.address, cache_dir=tmp_path / "cache"
    )
    assert result.ok, result.failures
    assert {step.status for step in result.steps} == {"ran"}
    made = (tmp_path / "build/digits.pb").read_bytes()
    assert api.run(tmp_path / "digits.yaml", cache_dir=tmp_path / "other").ok
    assert (tmp_path / "build/digits.pb").read_bytes() == made


def test_a_killed_worker_is_survived(folder: Path, store: Store, tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    try:
        workers = [made.add_worker("--no-nanny"), made.add_worker("--no-nanny")]
        made.wait_for_workers(2)
        models = {name: {"seconds": 2.0} for name in GOOD}
        killer = threading.Thread(target=kill_when_busy, args=(workers[0], folder))
        killer.start()
        result = run_on_pool(plans(folder, models), store, RunOptions(), made.address)
        killer.join()
        assert workers[0].wait() == -signal.SIGKILL
    finally:
        made.stop()
    assert result.ok, result.failures
    # What the dead one had begun ran twice.
    began = sum(len(path.read_text().splitlines()) for path in folder.glob("*.count"))
    assert began > len(GOOD)
    assert upkeep.verify(store) == []


def kill_when_busy(
    process: subprocess.Popen[bytes], folder: Path, number: signal.Signals = signal.SIGKILL
) -> None:
    """Kills a worker or the scheduler once both workers are in the middle of a step."""
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.count"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_scheduler_that_is_gone_ends_the_run(
    folder: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    """Within a minute; what was finished is kept, and a run goes on from there."""
    monkeypatch.setattr(chains, "_ASK", 3.0)
    made = Cluster(tmp_path)
    try:
        made.add_worker("--no-nanny")
        made.add_worker("--no-nanny")
        made.wait_for_workers(2)
        models = {f"m{number}": {"seconds": 2.0} for number in range(8)}
        killer = threading.Thread(target=kill_when_busy, args=(made.scheduler, folder, number))
        killer.start()
        began = time.monotonic()
        options = RunOptions(keep_going=True)
        result = run_on_pool(plans(folder, models), store, options, made.address)
        took = time.monotonic() - began
        killer.join()
    finally:
        made.scheduler.kill()
        made.stop()
    assert took < 60
    assert not result.ok
    for step in result.failures:
        assert step.error is not None
        assert step.error.message == (
            f"the pool {made.address} has given up its work: its scheduler is gone, or does not answer"
        )
    assert upkeep.verify(store) == []
    assert run_plans(plans(folder, models), store, RunOptions(jobs=4)).ok


def test_a_model_that_is_too_large_for_every_worker_is_an_error(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    made = Cluster(tmp_path)
    try:
        made.add_worker("--no-nanny", "--memory-limit", "40MB")
        with pytest.raises(PoolFailed, match=r"will probably take .* no worker has more") as caught:
            run_on_pool(plans(folder, {"large": {}}), store, RunOptions(), made.address)
        assert caught.value.message.startswith("large ")
        assert "--select" in caught.value.hint
        # A worker that is large enough joins, and it is tried.
        made.add_worker("--memory-limit", "2GB")
        # The small one has no room for itself and takes no work.
        expected = [(40_000_000, "paused"), (2_000_000_000, "running")]
        made.wait_until(
            lambda workers: sorted((w["memory_limit"], w["status"]) for w in workers) == expected
        )
        assert run_on_pool(plans(folder, {"large": {}}), store, RunOptions(), made.address).ok
    finally:
        made.stop()


def test_workers_that_are_paused_take_no_work(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Cluster(tmp_path)
    try:
        # It pauses at 2 MB, less than it takes itself.
        monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE", "0.001")
        words = ("--no-nanny", "--memory-limit", "2GB", "--resources", "LICENCE=1")
        paused = made.add_worker(*words)
        made.wait_until(lambda workers: [w["status"] for w in workers] == ["paused"])
        message = r"none of the workers that could take it takes work \(1 paused\)"
        with pytest.raises(PoolFailed, match=message) as caught:
            run_on_pool(plans(folder, GOOD), store, RunOptions(), made.address)
        assert "--memory-limit" in caught.value.hint
        # One that takes work is enough, if it is one that is asked for.
        monkeypatch.delenv("DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE")
        made.add_worker()
        made.wait_until(lambda workers: "running" in [w["status"] for w in workers])
        with pytest.raises(PoolFailed, match=message):
            run_on_pool(plans(folder, GOOD), store, RunOptions(), f"{made.address}?LICENCE=1")
        assert paused.poll() is None
        assert run_on_pool(plans(folder, GOOD), store, RunOptions(), made.address).ok
    finally:
        made.stop()


def test_one_that_kills_its_workers_is_blamed_alone(
    folder: Path, store: Store, cluster: Cluster
) -> None:
    models = {**GOOD, "poison": {"fail": "kill parent"}}
    options = RunOptions(keep_going=True)
    result = run_on_pool(plans(folder, models), store, options, cluster.address)
    assert [(step.ref.plan, step.ref.step) for step in result.failures] == [("poison", "change")]
    assert "KilledWorker" in result.failures[0].error.message  # type: ignore[union-attr]
    # One whose result was on a worker that died is asked for again, and is cached.
    assert {state for name in GOOD for state in ends(result)[name]} <= {"ran", "cached"}
    assert upkeep.verify(store) == []
    cluster.wait_for_workers(2)


def test_resources_that_somebody_has(folder: Path, store: Store, cluster: Cluster) -> None:
    address = f"{cluster.address}?LICENCE=1"
    assert run_on_pool(plans(folder, GOOD), store, RunOptions(), address).ok


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?LICENCE=5", "5 LICENCE is asked for, and no worker has more than 1"),
        ("?GPU=1", "1 GPU is asked for, and no worker has any"),
    ],
)
def test_resources_that_nobody_has_are_an_error_and_no_wait(
    folder: Path, store: Store, cluster: Cluster, query: str, message: str
) -> None:
    with pytest.raises(PoolFailed, match=message):
        run_on_pool(plans(folder, GOOD), store, RunOptions(), cluster.address + query)


def test_memory_that_nobody_has_is_an_error(folder: Path, store: Store, cluster: Cluster) -> None:
    options = RunOptions(mem_limit=10**15)
    with pytest.raises(PoolFailed, match="1e\\+06 GB is asked for"):
        run_on_pool(plans(folder, GOOD), store, options, cluster.address)


def test_a_scheduler_without_workers_is_an_error(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    made = Cluster(tmp_path)
    try:
        with pytest.raises(PoolFailed, match="has no workers"):
            run_on_pool(plans(folder, GOOD), store, RunOptions(), made.address)
    finally:
        made.stop()


@pytest.mark.parametrize("address", ["dask://host", "dask://host:1?GPU", "dask-local:none"])
def test_addresses_that_are_none(folder: Path, store: Store, address: str) -> None:
    with pytest.raises(UsageError, match="is no address of a Dask cluster"):
        run_on_pool(plans(folder, GOOD), store, RunOptions(), address)


def test_a_cluster_for_trial(tmp_path: Path) -> None:
    """On the command line: it starts, runs and ends."""
    shutil.copytree(ROOT / "pipelines" / "digits" / "model", tmp_path / "model")
    (tmp_path / "small.yaml").write_text(
        "version: 1\nname: small\nmodel: {saved_model: model}\n"
        "stages: [load, freeze, strip, {export: build/small.pb}]\n"
    )
    command = [str(Path(sys.executable).with_name("freezeflow")), "run", "small.yaml", "--json"]
    done = subprocess.run(
        [*command, "--executor", "dask-local:2"],
        cwd=tmp_path,
        env={**os.environ, "FREEZEFLOW_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"]
    assert (tmp_path / "build/small.pb").exists()
