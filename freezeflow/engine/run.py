"""Drives plans: looks steps up, runs those that are not cached, keeps what they give."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from freezeflow.engine.events import (
    OnEvent,
    RunEnded,
    RunStarted,
    StepEnded,
    StepStarted,
    StepWarned,
    ignore,
)
from freezeflow.engine.executors import LocalExecutor, Work
from freezeflow.engine.interruption import interruptible
from freezeflow.engine.keeping import Keeper, Lost
from freezeflow.engine.keys import KeyInput, Preimage, changes, preimages
from freezeflow.engine.options import RunOptions
from freezeflow.engine.orders import LOG_NAME, Limits, Order, Report
from freezeflow.engine.results import ResultFile, RunResult, StepRef, StepResult
from freezeflow.engine.schedule import Schedule, State
from freezeflow.errors import FreezeflowError, StageFailed, UsageError
from freezeflow.plan import Plan, Step
from freezeflow.store.actions import Action, ActionFile, PublishedFile, canonical_json, key_of
from freezeflow.store.files import remove_tree, write_atomically
from freezeflow.store.store import Store
from freezeflow.values import Digest

# Lines of a failed step's log that are shown.
_LOG_LINES = 20


def run(
    plan: Plan,
    store: Store,
    options: RunOptions = RunOptions(),  # noqa: B008  immutable
    on_event: OnEvent = ignore,
) -> RunResult:
    """Runs a plan; see `run_plans`."""
    return run_plans([plan], store, options, on_event)


def run_plans(
    plans: Sequence[Plan],
    store: Store,
    options: RunOptions = RunOptions(),  # noqa: B008  immutable
    on_event: OnEvent = ignore,
) -> RunResult:
    """Runs every step that is not cached, in the order in which they need each other.

    Args:
        plans: What to run; all plans share the jobs.
        store: Where results are looked up and kept.
        options: How.
        on_event: Told what happens, in this thread.

    Returns:
        How each step ended. What fails is in there, not raised.

    Raises:
        FreezeflowError: The store cannot be read or written.
        UsageError: `options.only` names no step.
        KeyboardInterrupt: Ctrl-C or SIGTERM: all processes are ended, nothing partial is left.
    """
    with interruptible(), store.in_use():
        return _Run(plans, store, options, on_event).go()


@dataclasses.dataclass(slots=True, kw_only=True)
class _Task:
    """A step on its way: what is known of it so far."""

    plan: Plan
    step: Step
    preimage: Preimage = dataclasses.field(default_factory=dict)
    key: Digest | None = None
    must_run: bool = False
    ran: bool = False
    scratch: Path | None = None


class _Run:
    def __init__(
        self, plans: Sequence[Plan], store: Store, options: RunOptions, on_event: OnEvent
    ) -> None:
        self._store = store
        self._options = options
        self._tell = on_event
        self._tasks = _tasks(plans, options.only)
        self._results: dict[StepRef, StepResult] = {}
        self._actions: dict[StepRef, Action] = {}
        self._queue: deque[StepRef] = deque()
        self._running: dict[str, StepRef] = {}
        self._schedule = Schedule({ref: self._needs(ref) for ref in self._tasks})
        # What was made in this run, by key.
        self._made: dict[Digest, StepRef] = {}
        self._counter = 0

    def go(self) -> RunResult:
        started = time.perf_counter()
        self._tell(RunStarted(steps=len(self._tasks)))
        self._look_up_all()
        if self._queue:
            self._run_all()
        result = RunResult(
            steps=tuple(self._results[ref] for ref in self._tasks),
            seconds=time.perf_counter() - started,
        )
        self._tell(RunEnded(result=result))
        return result

    # ------------------------------------------------------------ looking up

    def _look_up_all(self) -> None:
        """Looks up level by level until nothing more is known without running a step."""
        while ready := self._schedule.take():
            self._look_up(ready)

    def _look_up(self, refs: Sequence[StepRef]) -> None:
        wanted = [self._key_input(ref) for ref in refs]
        keyed: list[StepRef] = []
        for ref, preimage in zip(refs, preimages(wanted, self._store), strict=True):
            task = self._tasks[ref]
            if isinstance(preimage, FreezeflowError):
                self._fail(ref, preimage)
            else:
                task.preimage, task.key = preimage, key_of(preimage)
                keyed.append(ref)
        self._sort_out([ref for ref in keyed if self._schedule.state(ref) is State.TAKEN])

    def _sort_out(self, refs: Sequence[StepRef]) -> None:
        """Takes what is cached from the cache, and queues the rest."""
        candidates = [ref for ref in refs if not self._forced(ref)]
        known = self._store.actions.get([self._key(ref) for ref in candidates])
        found = {ref: known[self._key(ref)] for ref in candidates if self._key(ref) in known}
        whole = self._whole(found)
        self._note(whole)
        for ref, action in whole.items():
            self._use(ref, action)
        # In front: a chain that has begun goes on while its model is in memory.
        self._queue.extendleft(ref for ref in reversed(refs) if ref not in whole)

    def _forced(self, ref: StepRef) -> bool:
        task = self._tasks[ref]
        return not task.ran and (self._options.force or task.must_run)

    def _use(self, ref: StepRef, action: Action) -> None:
        """A step has its result from the cache."""
        self._actions[ref] = action
        self._schedule.done(ref)
        self._end(self._result(ref, action, "cached"))

    def _whole(self, found: Mapping[StepRef, Action]) -> dict[StepRef, Action]:
        """Those actions whose blobs and published files are all there and unchanged."""
        blobs = {digest for action in found.values() for digest in action.outputs.blobs()}
        lost = {blob.digest: blob for blob in self._store.blobs.lost(blobs)}
        expected = {
            file.path: (file.sha256, file.nbytes)
            for ref, action in found.items()
            for file in self._files(ref, action)
        }
        unchanged = self._store.stats.unchanged(expected)
        whole = {}
        for ref, action in found.items():
            missing = [lost[digest] for digest in action.outputs.blobs() if digest in lost]
            if missing:
                message = f"the cache is damaged, so it runs again: {missing[0].where} "
                self._tell(StepWarned(ref=ref, message=message + missing[0].message))
            elif all(file.path in unchanged for file in self._files(ref, action)):
                whole[ref] = action
        return whole

    def _note(self, whole: Mapping[StepRef, Action]) -> None:
        """Remembers which action each step used, where that is news."""
        news = []
        for recipe in {ref.recipe for ref in whole}:
            noted = self._store.actions.noted(str(recipe))
            news += [
                (str(recipe), ref.step, action.key)
                for ref, action in whole.items()
                if ref.recipe == recipe and noted.get(ref.step) != action.key
            ]
        self._store.actions.note(news)

    # ------------------------------------------------------------ running

    def _run_all(self) -> None:
        jobs = max(1, self._options.jobs)
        with self._store.scratch() as scratch:
            executor = LocalExecutor(jobs, scratch)
            keeper = Keeper(self._store, executor)
            try:
                if any(task.step.in_tensorflow for task in self._unfinished()):
                    executor.expect_tensorflow()
                while self._queue or self._running:
                    while len(self._running) < jobs and (ref := self._next()):
                        self._start(ref, executor, keeper, scratch)
                    for name, report in executor.wait():
                        self._take(self._running.pop(name), name, report, keeper)
                    self._look_up_all()
            finally:
                executor.stop()

    def _unfinished(self) -> Iterable[_Task]:
        refs = [*self._queue, *self._schedule.unfinished()]
        return (self._tasks[ref] for ref in refs)

    def _next(self) -> StepRef | None:
        """The next step to start; one with the key of a running one waits for that one's result."""
        busy = {self._key(ref) for ref in self._running.values()}
        for ref in list(self._queue):
            if self._key(ref) in busy:
                continue
            self._queue.remove(ref)
            made = self._made.get(self._key(ref))
            if made is None or made == ref or not self._reuse(ref, self._actions[made]):
                return ref
        return None

    def _reuse(self, ref: StepRef, action: Action) -> bool:
        """Takes what another step with the same key has just given."""
        whole = self._whole({ref: action})
        self._note(whole)
        if whole:
            self._use(ref, action)
        return bool(whole)

    def _start(self, ref: StepRef, executor: LocalExecutor, keeper: Keeper, scratch: Path) -> None:
        task = self._tasks[ref]
        needs = self._needs(ref)
        try:
            action = self._actions[needs[0]] if needs else None
            model = keeper.stored_model(action.outputs) if action else None
        except Lost as lost:
            self._reopen(ref, lost)
            return
        self._counter += 1
        name = f"step-{self._counter}"
        task.scratch = scratch / name
        task.scratch.mkdir()
        self._tell(StepStarted(ref=ref, stage=task.step.stage))
        self._running[name] = ref
        executor.start(
            Work(
                name=name,
                order=Order(
                    stage=task.step.stage,
                    params=task.step.params,
                    source=task.step.source,
                    base=task.step.base,
                    recipe_digest=task.plan.digest,
                    scratch=task.scratch,
                    model=model,
                    limits=self._limits(task.step),
                ),
                in_tensorflow=task.step.in_tensorflow,
                model_digest=action.outputs.model if action else None,
                seconds=self._options.step_seconds if task.step.in_tensorflow else None,
            )
        )

    def _limits(self, step: Step) -> Limits | None:
        if not step.in_tensorflow:
            return None
        seconds = self._options.step_seconds
        return Limits(
            memory_bytes=self._options.memory_bytes,
            # Many threads use up processor time faster than the clock goes.
            cpu_seconds=None if seconds is None else int(seconds * (os.cpu_count() or 1)) + 1,
        )

    # ------------------------------------------------------------ taking results

    def _take(self, ref: StepRef, name: str, report: Report, keeper: Keeper) -> None:
        """Keeps what a step gave, or tells why it failed."""
        task = self._tasks[ref]
        assert task.scratch is not None
        log = _read_log(task.scratch)
        for warning in report.warnings:
            self._tell(StepWarned(ref=ref, message=warning))
        failure = report.failure
        if report.crash is not None:
            failure = self._crashed(ref, report.crash)
        failure = failure or self._changed_meanwhile(ref)
        if failure is not None:
            self._fail(ref, failure, log)
        else:
            self._keep(ref, name, report, keeper, log)
        remove_tree(task.scratch)

    def _keep(self, ref: StepRef, name: str, report: Report, keeper: Keeper, log: bytes) -> None:
        task = self._tasks[ref]
        needs = self._needs(ref)
        given = self._actions[needs[0]].outputs if needs else None
        outputs = keeper.keep(report, given, name, str(task.scratch), log)
        files = tuple(
            PublishedFile(path=os.path.relpath(path, task.step.base), sha256=sha256, nbytes=nbytes)
            for path, sha256, nbytes in report.files
        )
        facts = {
            **report.facts,
            "seconds": round(report.seconds, 6),
            "peak_rss_bytes": report.peak_rss_bytes,
        }
        action = Action(
            key=self._key(ref),
            outputs=dataclasses.replace(outputs, files=files),
            facts_json=canonical_json(facts).decode(),
        )
        self._store.actions.put(
            ActionFile(action=action, preimage=task.preimage, recipe=str(ref.recipe), step=ref.step)
        )
        self._store.stats.remember_written((Path(path), sha) for path, sha, _ in report.files)
        task.ran = True
        self._made[action.key] = ref
        self._actions[ref] = action
        self._schedule.done(ref)
        self._end(self._result(ref, action, "ran"))

    def _changed_meanwhile(self, ref: StepRef) -> FreezeflowError | None:
        """A result is kept under what its files held, so they must hold it still."""
        task = self._tasks[ref]
        (now,) = preimages([self._key_input(ref)], self._store)
        if isinstance(now, FreezeflowError):
            return now
        for change in changes(task.preimage, now):
            return StageFailed(
                "a file that it reads changed while it ran",
                where=change.field,
                hint="run again when nothing writes to it any more",
            )
        return None

    def _crashed(self, ref: StepRef, text: str) -> FreezeflowError:
        """Keeps the report of a bug; the user gets one line."""
        task = self._tasks[ref]
        last = text.strip().splitlines()[-1]
        path = self._store.keep_crash(
            f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{ref.step}",
            f"{ref.recipe}: {ref.step}\n{json.dumps(dict(task.preimage), indent=1)}\n\n{text}",
        )
        return StageFailed(
            f"a fault in {task.step.stage}: {last}",
            hint=f"this is a bug; the report for us is in {path}",
        )

    def _fail(self, ref: StepRef, error: FreezeflowError, log: bytes = b"") -> None:
        task = self._tasks[ref]
        if not error.where:
            error.where = str(ref)
        self._end(
            StepResult(
                ref=ref,
                stage=task.step.stage,
                status="failed",
                key=task.key,
                error=error,
                log_end="\n".join(log.decode(errors="replace").splitlines()[-_LOG_LINES:]),
                log=self._keep_log(ref, log),
            )
        )
        skipped = self._schedule.failed(ref)
        if not self._options.keep_going:
            skipped += self._schedule.skip([*self._queue, *self._schedule.unfinished()])
            self._queue.clear()
        for other in skipped:
            stage = self._tasks[other].step.stage
            self._end(StepResult(ref=other, stage=stage, status="skipped"))

    def _keep_log(self, ref: StepRef, log: bytes) -> Path | None:
        if not log:
            return None
        path = self._store.folder / "logs" / f"{ref.recipe.stem}-{ref.step}.txt"
        write_atomically(path, [log])
        return path

    def _reopen(self, ref: StepRef, lost: Lost) -> None:
        """Has what was lost done again, before a step that needs it."""
        culprit = self._root(ref) if lost.by_load else self._needs(ref)[0]
        task = self._tasks[culprit]
        if self._schedule.state(culprit) is State.DONE:
            if task.ran:
                self._fail(ref, StageFailed(f"{lost.message}, although it has just been made"))
                return
            task.must_run = True
            self._tell(StepWarned(ref=culprit, message=f"runs again: {lost.message}"))
        self._schedule.reopen(culprit, ref)

    def _root(self, ref: StepRef) -> StepRef:
        """The step that began the chain."""
        while needs := self._needs(ref):
            ref = needs[0]
        return ref

    # ------------------------------------------------------------ small things

    def _needs(self, ref: StepRef) -> list[StepRef]:
        return [StepRef(ref.recipe, need) for need in self._tasks[ref].step.needs]

    def _key(self, ref: StepRef) -> Digest:
        key = self._tasks[ref].key
        assert key is not None
        return key

    def _key_input(self, ref: StepRef) -> KeyInput:
        task = self._tasks[ref]
        inputs = tuple(self._actions[need].outputs.model for need in self._needs(ref))
        return KeyInput(task.plan, task.step, inputs)

    def _files(self, ref: StepRef, action: Action) -> list[ResultFile]:
        base = self._tasks[ref].step.base
        return [
            ResultFile(Path(os.path.normpath(base / file.path)), file.sha256, file.nbytes)
            for file in action.outputs.files
        ]

    def _result(self, ref: StepRef, action: Action, status: Literal["cached", "ran"]) -> StepResult:
        return StepResult(
            ref=ref,
            stage=self._tasks[ref].step.stage,
            status=status,
            key=action.key,
            model=action.outputs.model,
            files=tuple(self._files(ref, action)),
            facts_json=action.facts_json,
            log=self._store.blobs.path(action.outputs.log) if action.outputs.log else None,
        )

    def _end(self, result: StepResult) -> None:
        self._results[result.ref] = result
        self._tell(StepEnded(result=result))


def _tasks(plans: Sequence[Plan], only: str | None) -> dict[StepRef, _Task]:
    """The steps to run, in order.

    Raises:
        UsageError: `only` names no step.
    """
    tasks = {
        StepRef(plan.recipe, step.id): _Task(plan=plan, step=step)
        for plan in plans
        for step in plan.steps
    }
    if only is None:
        return tasks
    wanted = {ref for ref, task in tasks.items() if only in (task.step.stage, task.step.id)}
    if not wanted:
        known = ", ".join(dict.fromkeys(task.step.id for task in tasks.values()))
        raise UsageError(f"no step is called {only!r}", hint=f"there are: {known}")
    for ref in reversed(tasks):
        if ref in wanted:
            wanted.update(StepRef(ref.recipe, need) for need in tasks[ref].step.needs)
    return {ref: task for ref, task in tasks.items() if ref in wanted}


def _read_log(scratch: Path) -> bytes:
    try:
        return (scratch / LOG_NAME).read_bytes()
    except FileNotFoundError:
        return b""
