"""A Dask cluster as a pool: one that runs, or one on this machine for trial.

Dask distributed: https://distributed.dask.org
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from freezeflow.engine.chain_worker import probe
from freezeflow.engine.pools import Needs, PoolFailed, check_versions
from freezeflow.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

# One and the same from Python 3.11 on.
_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)

# Seconds within which the scheduler must be reached.
_PATIENCE = 10

# Seconds that are given to workers to appear.
_STARTING = 5

# Seconds between two looks at whether workers take work.
_BETWEEN = 0.2


class DaskPool:
    """A client of a scheduler.

    Args:
        address: ``dask://host:port?NAME=AMOUNT`` or ``dask-local:N``.

    Raises:
        UsageError: The address is none.
        MissingExtra: distributed is not installed.
        PoolFailed: The scheduler does not answer.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._resources: dict[str, float] = {}
        self._cluster: LocalCluster | None = None
        self._client = self._open()
        self._executor = self._client.get_executor(pure=False, resources=self._resources)

    def check(self, needs: Needs) -> None:
        with contextlib.suppress(*_TIMEOUTS):  # they may be starting
            self._client.wait_for_workers(1, timeout=_STARTING)
        workers = self._workers()
        if not workers:
            raise self._failed("has no workers", "Start some: dask worker HOST:PORT --nthreads 1.")
        for name, amount in self._resources.items():
            most = max(worker["resources"].get(name, 0) for worker in workers.values())
            if most < amount:
                has = f"more than {most:g}" if most else "any"
                raise self._failed(
                    f"{amount:g} {name} is asked for, and no worker has {has}",
                    f"Start one with it: dask worker ... --resources {name}={amount:g}.",
                )
        if not any(self._has_all(worker) for worker in workers.values()):
            raise self._failed("no worker has all the resources that are asked for together", "")
        self._check_memory(needs, workers)
        self._check_awake()
        for name, found in self._client.run(probe, list(needs.versions), on_error="return").items():
            if isinstance(found, BaseException):
                raise self._failed(f"the worker {name} has no freezeflow: {found}", "")
            check_versions(needs, f"the worker {name}", found["versions"])

    def submit(self, function: Callable[..., Any], *args: object) -> Future[Any]:
        future: Future[Any] = self._executor.submit(function, *args)
        return future

    def mem_limit(self, needs: Needs) -> int | None:
        limits = [worker["memory_limit"] for worker in self._workers().values()]
        return needs.mem_limit or min(filter(None, limits), default=None)

    def answers(self) -> bool:
        try:
            self._client.sync(self._client.scheduler.identity, callback_timeout=_PATIENCE)
        except (OSError, *_TIMEOUTS):
            return False
        return True

    def renew(self) -> None:
        """Nothing to do: the scheduler starts workers anew, and gives their work to others."""

    def close(self) -> None:
        with contextlib.suppress(OSError, *_TIMEOUTS):
            self._executor.shutdown(wait=False)
        self._client.close(timeout=_PATIENCE)
        if self._cluster is not None:
            self._cluster.close()

    def _open(self) -> Client:
        try:
            from distributed import Client, LocalCluster
        except ModuleNotFoundError:
            hint = "pip install 'freezeflow[dask]'"
            raise MissingExtra("a Dask cluster needs the package distributed", hint=hint) from None
        if not self._address.startswith("dask://"):
            self._cluster = LocalCluster(
                n_workers=_number(self._address),
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
            )
            return Client(self._cluster)
        parts = urlsplit(self._address)
        self._resources = _resources(self._address, parts.query)
        if not parts.hostname or not parts.port:
            raise _no_address(self._address)
        try:
            return Client(f"tcp://{parts.hostname}:{parts.port}", timeout=_PATIENCE)
        except (OSError, *_TIMEOUTS) as error:
            raise self._failed(
                "no scheduler answers there", "Start one: dask scheduler."
            ) from error

    def _workers(self) -> Mapping[str, Mapping[str, Any]]:
        workers: Mapping[str, Mapping[str, Any]] = self._client.scheduler_info(n_workers=-1)[
            "workers"
        ]
        return workers

    def _has_all(self, worker: Mapping[str, Any]) -> bool:
        there = worker["resources"]
        return all(there.get(name, 0) >= amount for name, amount in self._resources.items())

    def _check_memory(self, needs: Needs, workers: Mapping[str, Mapping[str, Any]]) -> None:
        limits = [worker["memory_limit"] for worker in workers.values()]
        if needs.mem_limit and all(limits) and max(limits) < needs.mem_limit:
            raise self._failed(
                f"{needs.mem_limit / 1e9:.3g} GB is asked for, and no worker has more than"
                f" {max(limits) / 1e9:.3g} GB",
                "Ask for less (--mem-limit), or start larger workers (--memory-limit).",
            )
        name, wanted = needs.largest
        if all(limits) and max(limits) < wanted:
            raise self._failed(
                f"{name} will probably take {wanted / 1e9:.3g} GB of memory, and no worker has more than"
                f" {max(limits) / 1e9:.3g} GB",
                "Start larger workers (--memory-limit), or leave the model out (--select).",
            )

    def _check_awake(self) -> None:
        """Refuses where all who could take the work have stopped taking any.

        Dask pauses a worker that has little memory left; its work would wait for ever.
        """
        end = time.monotonic() + _STARTING
        while True:
            able = [worker for worker in self._workers().values() if self._has_all(worker)]
            if any(worker["status"] == "running" for worker in able):
                return
            if time.monotonic() > end:
                break
            time.sleep(_BETWEEN)
        states = Counter(worker["status"] for worker in able)
        told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        raise self._failed(
            f"none of the workers that could take it takes work ({told or 'all are gone'})",
            "A paused worker has too little memory left: end what else it holds, start it anew, or"
            " start larger ones (--memory-limit).",
        )

    def _failed(self, message: str, hint: str) -> PoolFailed:
        return PoolFailed(message, where=self._address, hint=hint)


def _number(address: str) -> int:
    number = address.removeprefix("dask-local").removeprefix(":")
    if not number.isdecimal() or int(number) < 1:
        raise _no_address(address)
    return int(number)


def _resources(address: str, query: str) -> dict[str, float]:
    try:
        return {
            name: float(amount) for name, amount in parse_qsl(query, strict_parsing=bool(query))
        }
    except ValueError:
        raise _no_address(address) from None


def _no_address(address: str) -> UsageError:
    return UsageError(
        f"{address!r} is no address of a Dask cluster",
        hint="As dask://host:8786, dask://host:8786?GPU=1, or dask-local:2.",
    )
