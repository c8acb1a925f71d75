"""Runs plans on a pool of workers: a model's whole chain is one piece of work there.

What is cached here is not sent. A chain whose worker dies is run again by another, which finds what was
finished in the cache; one that kills its workers again and again is blamed, alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from itertools import groupby
from typing import Any

from freezeflow.engine.chain_orders import ChainResult, chain_order
from freezeflow.engine.chain_worker import run_chain
from freezeflow.engine.choosing import source_bytes
from freezeflow.engine.events import (
    OnEvent,
    PlanEnded,
    RunEnded,
    RunStarted,
    RunWarned,
    StepEnded,
    StepStarted,
    StepWarned,
    ignore,
)
from freezeflow.engine.interruption import interruptible
from freezeflow.engine.memory import first_estimate
from freezeflow.engine.options import RunOptions
from freezeflow.engine.pools import Needs, Pool, open_pool
from freezeflow.engine.results import RunResult, StepRef, StepResult, StepResults
from freezeflow.engine.shared_on_demand import SharedOnDemand
from freezeflow.engine.survey import Fetch, look_up
from freezeflow.engine.tasks import check_only, make_tasks, wanted
from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.installed import version_of
from freezeflow.plan import Plan
from freezeflow.store.store import Store
from freezeflow.version import VERSION

# Plans that are looked up together.
_AT_ONCE = 256

# Seconds after which Ctrl-C is looked for, and after which the pool is asked whether it is there.
_WATCH = 0.5
_ASK = 30.0


def run_on_pool(
    plans: Sequence[Plan],
    store: Store,
    options: RunOptions,
    address: str,
    on_event: OnEvent = ignore,
) -> RunResult:
    """Runs every step that is not cached, each plan's on a worker of a pool.

    Args:
        plans: What to run.
        store: The cache on this machine.
        options: How; `jobs` does not matter, the pool has as many workers as it has.
        address: The pool (`freezeflow.engine.pools`).
        on_event: Told what happens, in this thread.

    Returns:
        How each step ended. What fails is in there, not raised.

    Raises:
        UsageError: There is no such pool, or `options.only` names no step.
        MissingExtra: A package that it needs is not installed.
        PoolFailed: It cannot be reached, or its workers cannot do what is asked.
        KeyboardInterrupt: Nothing more is begun.
    """
    with interruptible(lambda: False), store.in_use():
        return _PoolRun(plans, store, options, address, on_event).go()


class _PoolRun:
    def __init__(
        self,
        plans: Sequence[Plan],
        store: Store,
        options: RunOptions,
        address: str,
        on_event: OnEvent,
    ) -> None:
        check_only(plans, options.only)
        self._plans = {(plan.recipe, plan.name): plan for plan in plans}
        self._store = store
        self._options = options
        self._address = address
        self._tell = on_event
        self._results = StepResults(self._plans)
        self._stopping = False

    def go(self) -> RunResult:
        started = time.perf_counter()
        plans = list(self._plans.values())
        counts = [len(wanted(plan, self._options.only)) for plan in plans]
        self._tell(RunStarted(steps=sum(counts), plans=sum(map(bool, counts))))
        missing = self._look_up([plan for plan, count in zip(plans, counts, strict=True) if count])
        if missing:
            self._run_all(missing)
        result = RunResult(steps=self._results, seconds=time.perf_counter() - started)
        self._tell(RunEnded(result=result))
        return result

    def _look_up(self, plans: Sequence[Plan]) -> list[Plan]:
        """The plans of which something is not cached here or in the shared cache; ends the others."""
        if self._options.force:
            return list(plans)
        missing: list[Plan] = []
        shared = SharedOnDemand(self._options.remote, self._store, self._tell)
        try:
            for start in range(0, len(plans), _AT_ONCE):
                missing += self._end_cached(plans[start : start + _AT_ONCE], shared.fetch)
            shared.settle()
        finally:
            shared.close()
        return missing

    def _end_cached(self, plans: Sequence[Plan], fetch: Fetch) -> Iterator[Plan]:
        tasks = look_up(plans, self._store, fetch, only=self._options.only)
        by_plan = groupby(tasks, lambda task: task.ref[:2])
        for plan, (_, steps) in zip(plans, by_plan, strict=True):
            found = list(steps)
            if all(task.action for task in found):
                self._end([task.ended("cached", self._store.blobs) for task in found])
            else:
                yield plan

    def _run_all(self, plans: Sequence[Plan]) -> None:
        pool = open_pool(self._address)
        try:
            needs = _needs(plans, self._options)
            pool.check(needs)
            limit = pool.mem_limit(needs)
            self._options = dataclasses.replace(self._options, mem_limit=limit)
            broke = self._run_together(pool, plans)
            # Among these is the one that broke the pool: alone, it can only blame itself.
            for plan in broke:
                pool.renew()
                self._run_alone(pool, plan)
        finally:
            pool.close()

    def _run_together(self, pool: Pool, plans: Sequence[Plan]) -> list[Plan]:
        """Runs plans side by side; those that were on their way when the pool broke are given back."""
        running = {self._submit(pool, plan): plan for plan in plans}
        broke = []
        heard = time.monotonic()
        while running:
            done, _ = wait(running, timeout=_WATCH, return_when=FIRST_COMPLETED)
            if not done and time.monotonic() - heard > _ASK:
                # A machine that stands still or is cut off breaks no connection for hours.
                if not pool.answers():
                    self._give_up(running.values())
                    return []
                heard = time.monotonic()
            for future in done:
                plan = running.pop(future)
                if isinstance(_error(future), BrokenExecutor) and not self._stopping:
                    broke.append(plan)
                else:
                    self._take(plan, future)
            if self._stopping:
                for future in running:
                    future.cancel()
        return broke

    def _run_alone(self, pool: Pool, plan: Plan) -> None:
        if self._stopping:
            self._skip(plan)
            return
        future = self._submit(pool, plan)
        wait([future])
        self._take(plan, future)

    def _submit(self, pool: Pool, plan: Plan) -> Future[Any]:
        return pool.submit(run_chain, chain_order(plan, self._store.folder, self._options))

    # ------------------------------------------------------------ ends of chains

    def _take(self, plan: Plan, future: Future[Any]) -> None:
        error = _error(future)
        if isinstance(error, CancelledError) and self._stopping:
            self._skip(plan)
        elif isinstance(error, CancelledError):
            self._blame(plan, _given_up(self._address))
        elif error is not None:
            self._blame(plan, error)
        else:
            self._hear(plan, ChainResult.from_data(future.result()))
        failed = "failed" in self._results.statuses
        self._stopping |= failed and not self._options.keep_going

    def _hear(self, plan: Plan, chain: ChainResult) -> None:
        """Tells what happened on the worker, as if it had happened here."""
        for step, message in chain.warnings:
            if step:
                ref = StepRef(plan.recipe, plan.name, step)
                self._tell(StepWarned(ref=ref, message=message))
            else:
                self._tell(RunWarned(message=message))
        self._end(chain.steps)

    def _blame(self, plan: Plan, error: BaseException) -> None:
        """The chain has killed its workers, or could not be run there: its first open step failed."""
        failure = error if isinstance(error, FreezeflowError) else _worker_lost(error)
        results = []
        for task in look_up([plan], self._store, None, only=self._options.only):
            if task.action is not None:
                results.append(task.ended("cached", self._store.blobs))
            elif any(result.status == "failed" for result in results):
                results.append(task.skipped())
            else:
                failure.where = failure.where or str(task.ref)
                results.append(
                    StepResult(ref=task.ref, stage=task.step.stage, status="failed", error=failure)
                )
        self._end(results)

    def _give_up(self, plans: Iterable[Plan]) -> None:
        """Nobody is there who hands out the work: all of it has failed."""
        self._stopping = True
        for plan in plans:
            self._blame(plan, _given_up(self._address))

    def _skip(self, plan: Plan) -> None:
        self._end([task.skipped() for task in make_tasks(plan, self._options.only)])

    def _end(self, results: Sequence[StepResult]) -> None:
        """All steps of a plan have ended."""
        for result in results:
            if result.status in ("ran", "failed"):
                self._tell(StepStarted(ref=result.ref, stage=result.stage))
            self._tell(StepEnded(result=result))
        self._results.put(results)
        self._tell(PlanEnded(results=results))


def _needs(plans: Sequence[Plan], options: RunOptions) -> Needs:
    versions = {"freezeflow": VERSION}
    for plan in plans:
        for step in plan.steps:
            # Some are not packages, such as an export format's own version.
            tools = step.tools.items()
            versions.update({n: v for n, v in tools if v == (version_of(n) or "absent")})
    return Needs(versions=versions, mem_limit=options.mem_limit, largest=_largest(plans))


def _largest(plans: Sequence[Plan]) -> tuple[str, int]:
    """The model that will probably take most memory, and how much."""
    found = ("", 0)
    for plan in plans:
        source = plan.steps[0].source
        in_tensorflow = any(step.in_tensorflow for step in plan.steps)
        wanted = first_estimate(source_bytes(source), in_tensorflow=in_tensorflow)
        found = max(found, (plan.name, wanted), key=lambda each: each[1])
    return found


def _error(future: Future[Any]) -> BaseException | None:
    """What a finished future raised; a `CancelledError` where it was cancelled."""
    return CancelledError() if future.cancelled() else future.exception()


def _given_up(address: str) -> StageFailed:
    return StageFailed(
        f"the pool {address} has given up its work: its scheduler is gone, or does not answer",
        hint="What was finished is cached; run again when it is there.",
    )


def _worker_lost(error: BaseException) -> StageFailed:
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return StageFailed(
        f"its worker was lost, again and again ({what[:200]})",
        hint="What it needs may be more than a worker has; the logs of the workers say more.",
    )
