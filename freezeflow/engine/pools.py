"""Where whole chains run: pools of workers, as `concurrent.futures.Executor`, by an address.

dask://host:port[?NAME=AMOUNT&...]    a Dask scheduler; each chain asks for these resources
dask-local:N                          a Dask cluster of N processes on this machine, for trial
NAME[:ARGUMENT]                       what a package offers by the entry point group
                                      ``freezeflow.executors``: a function that takes the
                                      argument (a text) and returns an Executor
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Protocol

from freezeflow.engine.chain_worker import probe
from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.suggestions import did_you_mean

GROUP = "freezeflow.executors"

# Seconds within which a worker of an executor of someone else's says what it is.
_PATIENCE = 120.0


class PoolFailed(FreezeflowError):
    """There are no workers, or they cannot do what is asked."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What chains need of a worker.

    Args:
        versions: Packages whose versions are part of keys, with those; freezeflow's own.
        mem_limit: Bytes of memory that a worker's steps may take together; None for what it has.
        largest: The name of the model that will probably take most, and how many bytes of memory.
    """

    versions: dict[str, str]
    mem_limit: int | None
    largest: tuple[str, int] = ("", 0)


class Pool(Protocol):
    """An open pool."""

    def check(self, needs: Needs) -> None:
        """Whether workers can do it at all.

        Raises:
            PoolFailed: There are none, or none that can.
        """

    def submit(self, function: Callable[..., Any], *args: object) -> Future[Any]:
        """Runs something on a worker."""

    def mem_limit(self, needs: Needs) -> int | None:
        """Bytes of memory that a worker's steps may take together; None for what the machine has."""

    def answers(self) -> bool:
        """Whether what hands out the work is still there; waits at most some seconds."""

    def renew(self) -> None:
        """Begins anew after the pool has broken."""

    def close(self) -> None:
        """Gives up whatever is still waiting."""


def open_pool(address: str) -> Pool:
    """Opens a pool.

    Raises:
        UsageError: There is no such kind of pool.
        MissingExtra: A package that it needs is not installed.
        PoolFailed: It cannot be reached.
    """
    if address.startswith(("dask://", "dask-local")):
        from freezeflow.engine.dask_pool import DaskPool

        return DaskPool(address)
    name, _, argument = address.partition(":")
    return PluginPool(name, _maker(name), argument)


class PluginPool:
    """An executor that a package offers.

    Args:
        name: Its name.
        make: Makes it.
        argument: For `make`.
    """

    def __init__(self, name: str, make: Callable[[str], Executor], argument: str) -> None:
        self._name = name
        self._make = make
        self._argument = argument
        self._executor = make(argument)

    def check(self, needs: Needs) -> None:
        asked = self.submit(probe, list(needs.versions))
        try:
            error = asked.exception(_PATIENCE)
        except FutureTimeout:
            raise PoolFailed(f"no worker of {self._name} answers") from None
        if error is not None:
            raise PoolFailed(f"a worker of {self._name} has no freezeflow: {error}")
        check_versions(needs, f"a worker of {self._name}", asked.result()["versions"])

    def submit(self, function: Callable[..., Any], *args: object) -> Future[Any]:
        return self._executor.submit(function, *args)

    def answers(self) -> bool:
        return True  # an executor that is gone breaks its futures

    def mem_limit(self, needs: Needs) -> int | None:
        return needs.mem_limit

    def renew(self) -> None:
        self.close()
        self._executor = self._make(self._argument)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def check_versions(needs: Needs, worker: str, found: Mapping[str, str | None]) -> None:
    """Keys name versions of packages; a worker with others would give something else under them."""
    for package, version in needs.versions.items():
        there = found.get(package) or "absent"
        if there != version:
            raise PoolFailed(
                f"{worker} has {package} {there}, and here it is {version}",
                hint="Workers need the same versions: the keys of what they make name them.",
            )


def _maker(name: str) -> Callable[[str], Executor]:
    from importlib.metadata import entry_points

    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if len(found) > 1:
        owners = " and ".join(sorted(point.value for point in found))
        raise UsageError(f"several packages offer the executor {name!r}: {owners}")
    if not found:
        known = sorted({"local", "dask://", "dask-local", *entry_points(group=GROUP).names})
        raise UsageError(f"there is no executor {name!r}", hint=did_you_mean(name, known))
    maker: Callable[[str], Executor] = found[0].load()
    return maker
