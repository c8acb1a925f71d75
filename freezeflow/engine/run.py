"""Drives plans: looks steps up, runs those that are not cached, keeps what they give."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freezeflow.context import EVIDENCE
from freezeflow.engine.admission import Answer, Queue, Room
from freezeflow.engine.events import (
    CacheShared,
    OnEvent,
    RunEnded,
    RunStarted,
    RunWarned,
    StepEnded,
    StepStarted,
    StepWarned,
    ignore,
)
from freezeflow.engine.evidence import evidence_facts, file_name
from freezeflow.engine.interruption import interruptible
from freezeflow.engine.keeping import Keeper, Lost
from freezeflow.engine.keys import changes, preimages
from freezeflow.engine.looking_up import cached, uncollected
from freezeflow.engine.memory import Memory
from freezeflow.engine.options import ALL_MEMORY, RunOptions
from freezeflow.engine.orders import LOG_NAME, Ended, Limits, Order, Report, StoredModel, Work
from freezeflow.engine.results import RunResult, StepRef, StepResult
from freezeflow.engine.schedule import Schedule, State
from freezeflow.engine.tasks import Task, make_tasks, placed
from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.plan import Plan
from freezeflow.store.actions import Action, ActionFile, PublishedFile, canonical_json, key_of
from freezeflow.store.files import remove_tree, write_atomically
from freezeflow.store.store import Store
from freezeflow.values import Digest

if TYPE_CHECKING:
    from freezeflow.engine.executors import Executor, LocalExecutor, MakeExecutor
    from freezeflow.engine.shared import SharedCache

# Lines of a failed step's log that are shown.
_LOG_LINES = 20

# Seconds after which is looked again: at what another run is making, and whether Ctrl-C was pressed.
_PATIENCE = 0.02
_WATCH = 0.5


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
    make_executor: MakeExecutor | None = None,
) -> RunResult:
    """Runs every step that is not cached, in the order in which they need each other.

    Args:
        plans: What to run; all plans share the jobs.
        store: Where results are looked up and kept.
        options: How.
        on_event: Told what happens, in this thread.
        make_executor: Makes what runs the steps; None for this machine.

    Returns:
        How each step ended. What fails is in there, not raised.

    Raises:
        FreezeflowError: The store cannot be read or written.
        UsageError: `options.only` names no step.
        KeyboardInterrupt: Ctrl-C or SIGTERM: nothing partial is left. Where steps run in other
            processes, the first Ctrl-C lets those finish that have begun.
    """
    going = _Run(plans, store, options, on_event, make_executor)
    with interruptible(going.interrupt), store.in_use():
        return going.go()


class _Run:
    def __init__(
        self,
        plans: Sequence[Plan],
        store: Store,
        options: RunOptions,
        on_event: OnEvent,
        make_executor: MakeExecutor | None,
    ) -> None:
        self._store = store
        self._options = options
        self._tell = on_event
        self._make_executor = make_executor
        self._tasks = make_tasks(plans, options.only)
        self._schedule = Schedule({task: task.needs for task in self._tasks})
        self._queue = Queue()
        # Of each plan that is not over its tasks, and how many of them are not.
        self._by_plan: dict[tuple[Path, str], list[Task]] = {}
        for task in self._tasks:
            self._by_plan.setdefault(task.ref[:2], []).append(task)
        self._open = Counter(task.ref[:2] for task in self._tasks)
        self._running: dict[str, Task] = {}
        # Which action each step used last, once that is asked.
        self._noted: Mapping[tuple[str, str], Digest] | None = None
        self._counter = 0
        # A step has failed, or Ctrl-C was pressed, and no other may begin.
        self._stopping = False
        self._interrupted = False
        # Steps run in other processes, which Ctrl-C lets finish.
        self._apart = False
        # Opened when something is missed.
        self._shared: SharedCache | None = None

    def go(self) -> RunResult:
        started = time.perf_counter()
        plans = Counter((task.ref.recipe, task.ref.plan) for task in self._tasks)
        self._tell(RunStarted(steps=len(self._tasks), plans=plans))
        try:
            with uncollected():
                self._look_up_all()
            if self._queue:
                self._run_all()
            self._settle()
        finally:
            if self._shared is not None:
                self._shared.close()
        self._note_cached()
        result = RunResult(
            steps=tuple(task.result for task in self._tasks if task.result),
            seconds=time.perf_counter() - started,
        )
        self._tell(RunEnded(result=result))
        if self._interrupted:
            raise KeyboardInterrupt
        return result

    # ------------------------------------------------------------ looking up

    def _look_up_all(self) -> None:
        """Looks up level by level until nothing more is known without running a step."""
        while ready := self._schedule.take():
            self._look_up(ready)

    def _look_up(self, tasks: Sequence[Task]) -> None:
        found = preimages([task.key_input() for task in tasks], self._store)
        keyed = []
        for task, preimage in zip(tasks, found, strict=True):
            if isinstance(preimage, FreezeflowError):
                self._fail(task, preimage)
            else:
                task.preimage, task.key = preimage, key_of(preimage)
                keyed.append(task)
        missed = self._use_cached([task for task in keyed if not self._forced(task)])
        missed += [task for task in keyed if self._forced(task)]
        if self._stopping:
            self._skip(missed)
        else:
            # In front: a chain that has begun goes on while its model is in memory.
            self._queue.put_in_front(missed)

    def _forced(self, task: Task) -> bool:
        return not task.ran and (self._options.force or task.must_run)

    def _use_cached(self, tasks: Sequence[Task]) -> list[Task]:
        """Gives those tasks their results that have one; returns the others."""
        found = cached([(task.key, task.step) for task in tasks], self._store)
        unknown = [task for task, (action, _) in zip(tasks, found, strict=True) if action is None]
        shared = self._shared_cache() if unknown else None
        if shared and shared.fetch([task.wish() for task in unknown]):
            found = cached([(task.key, task.step) for task in tasks], self._store)
        missed = []
        for task, (action, reason) in zip(tasks, found, strict=True):
            if action is not None:
                self._done(task, action, "cached")
                continue
            if reason:
                self._tell(StepWarned(ref=task.ref, message=f"runs again: {reason}"))
            missed.append(task)
        return missed

    # ------------------------------------------------------------ the shared cache

    def _shared_cache(self) -> SharedCache | None:
        """The shared cache; None where there is none."""
        if self._shared is None and self._options.remote.url:
            from freezeflow.engine.shared import SharedCache

            self._shared = SharedCache(
                self._options.remote,
                self._store,
                lambda message: self._tell(RunWarned(message=message)),
            )
        return self._shared

    def _fetch_weights(self, digests: Collection[Digest]) -> None:
        if shared := self._shared_cache():
            shared.fetch_weights(digests)

    def _share(self, task: Task, action: Action) -> None:
        if self._options.remote.push and (shared := self._shared_cache()):
            shared.push(task.wish(), action)

    def _settle(self) -> None:
        """Waits until what was made is in the shared cache, too."""
        if self._shared is None:
            return
        self._shared.settle()
        went = self._shared.traffic
        if went.fetched or went.pushed:
            self._tell(CacheShared(**dataclasses.asdict(went)))

    def _note_cached(self) -> None:
        """Remembers which action each cached step used, where that is news."""
        used = [
            (*task.ref.place, task.key)
            for task in self._tasks
            if task.result and task.result.status == "cached"
        ]
        noted = self._store.actions.noted({recipe for recipe, _, _ in used})
        self._store.actions.note([use for use in used if noted.get(use[:2]) != use[2]])

    # ------------------------------------------------------------ running

    def _executor(self, scratch: Path) -> LocalExecutor:
        from freezeflow.engine.executors import LocalExecutor

        return (self._make_executor or LocalExecutor)(scratch, apart=self._apart)

    def _run_all(self) -> None:
        jobs = max(1, self._options.jobs)
        unfinished = [*self._queue.tasks(), *self._schedule.unfinished()]
        with self._store.scratch() as scratch, self._store.key_locks() as locks:
            self._room = Room(Memory(self._options.mem_limit), locks, self._past_peak)
            self._apart = _is_many(unfinished)
            executor = self._executor(scratch)
            keeper = Keeper(self._store, executor, self._fetch_weights)
            try:
                if any(task.step.in_tensorflow for task in unfinished):
                    executor.expect_tensorflow()
                while self._queue or self._running:
                    while len(self._running) < jobs and (task := self._queue.next(self._ask)):
                        self._start(task, executor, keeper, scratch)
                    for name, report in self._wait(executor):
                        self._take(name, scratch / name, report, keeper)
                    self._look_up_all()
                    self._heed_interrupt()
            finally:
                executor.stop()

    def _ask(self, task: Task) -> Answer:
        """Whether a step may start; it may have a result by now, made here or by another run."""
        answer = self._room.ask(task)
        if answer is not Answer.START or self._forced(task):
            return answer
        ((action, _),) = cached([(task.key, task.step)], self._store)
        if action is None:
            return Answer.START
        self._room.leave(task)
        self._done(task, action, "cached")
        return Answer.DONE

    def _wait(self, executor: Executor) -> list[Ended]:
        if not self._running:
            if self._queue and self._queue.waits_for_others:
                time.sleep(_PATIENCE)
            return []
        return executor.wait(_PATIENCE if self._queue.waits_for_others else _WATCH)

    def _past_peak(self, task: Task) -> int:
        """What a step took the last time; 0 where it never ran."""
        if self._noted is None:
            recipes = {str(task.ref.recipe) for task in self._tasks}
            self._noted = self._store.actions.noted(recipes)
        key = self._noted.get(task.ref.place)
        found = self._store.actions.get([key]) if key else {}
        return sum(int(action.facts.get("own_peak_bytes", 0)) for action in found.values())

    def interrupt(self) -> bool:
        """Ctrl-C: the first one is taken here, and no more steps start; the next one ends the run."""
        if not self._apart or self._interrupted:
            return False
        self._interrupted = True
        return True

    def _heed_interrupt(self) -> None:
        if not self._interrupted or self._stopping:
            return
        self._stopping = True
        self._skip([*self._queue.take_all(), *self._schedule.unfinished()])
        steps = f"{len(self._running)} step{'s' if len(self._running) != 1 else ''}"
        message = f"interrupted: {steps} that run now are finished first; Ctrl-C again ends them"
        self._tell(RunWarned(message=message))

    def _start(self, task: Task, executor: Executor, keeper: Keeper, scratch: Path) -> None:
        given = task.given
        in_tensorflow = task.step.in_tensorflow
        try:
            model = None
            if given is not None:
                model = keeper.stored_model(given.outputs, in_tensorflow=in_tensorflow)
        except Lost as lost:
            self._room.leave(task)
            self._reopen(task, lost)
            return
        self._counter += 1
        name = f"step-{self._counter}"
        (scratch / name).mkdir()
        self._tell(StepStarted(ref=task.ref, stage=task.step.stage))
        self._running[name] = task
        self._room.start(name, task)
        executor.start(
            Work(
                name=name,
                order=self._order(task, model, scratch / name),
                in_tensorflow=in_tensorflow,
                model_digest=given.outputs.model if given else None,
                seconds=self._options.step_seconds,
            )
        )

    def _order(self, task: Task, model: StoredModel | None, scratch: Path) -> Order:
        step = task.step
        seconds = self._options.step_seconds
        limits = Limits(
            memory_bytes=self._options.mem_limit or ALL_MEMORY,
            # Many threads use up processor time faster than the clock goes.
            cpu_seconds=None if seconds is None else int(seconds * (os.cpu_count() or 1)) + 1,
        )
        return Order(
            stage=step.stage,
            params=step.params,
            source=step.source,
            base=step.base,
            recipe_digest=step.recipe_digest or None,
            scratch=scratch,
            model=model,
            limits=limits if step.in_tensorflow else None,
            confines_itself=step.confines_itself,
            files=tuple(
                (str(file.path), file.sha256, file.nbytes)
                for file in placed(task.needed_files(), step.base)
            ),
        )

    # ------------------------------------------------------------ taking results

    def _take(self, name: str, scratch: Path, report: Report, keeper: Keeper) -> None:
        """Keeps what a step gave, or tells why it failed."""
        task = self._running.pop(name)
        log = _read_log(scratch)
        for warning in report.warnings:
            self._tell(StepWarned(ref=task.ref, message=warning))
        failure = report.failure
        if report.crash is not None:
            failure = self._crashed(task, report.crash)
        failure = failure or self._changed_meanwhile(task)
        if failure is None:
            self._keep(task, scratch, report, keeper, log)
        elif report.lost and task.attempts < self._options.retries and not self._stopping:
            self._try_again(task, failure)
        else:
            self._fail(task, failure, log, scratch / EVIDENCE)
        self._room.end(name, report.own_peak_bytes)
        remove_tree(scratch)

    def _try_again(self, task: Task, failure: FreezeflowError) -> None:
        """What happened to its process may not happen again: with more room, at another time."""
        task.attempts += 1
        number = f"attempt {task.attempts + 1} of {self._options.retries + 1}"
        self._tell(StepWarned(ref=task.ref, message=f"{failure.message}; {number}"))
        self._queue.put_in_front([task])

    def _keep(self, task: Task, scratch: Path, report: Report, keeper: Keeper, log: bytes) -> None:
        given = task.given
        outputs = keeper.keep(report, given.outputs if given else None, scratch, log)
        files = tuple(
            PublishedFile(path=os.path.relpath(path, task.step.base), sha256=sha256, nbytes=nbytes)
            for path, sha256, nbytes in report.files
        )
        facts = {
            **report.facts,
            "seconds": round(report.seconds, 6),
            "peak_rss_bytes": report.peak_rss_bytes,
            "own_peak_bytes": report.own_peak_bytes,
        }
        action = Action(
            key=task.key,
            outputs=dataclasses.replace(outputs, files=files),
            facts_json=canonical_json(facts).decode(),
        )
        recipe, step = task.ref.place
        self._store.actions.put(
            ActionFile(action=action, preimage=task.preimage, recipe=recipe, step=step)
        )
        self._store.stats.remember_written((Path(path), sha) for path, sha, _ in report.files)
        self._share(task, action)
        self._store.failures.forget(file_name(task.ref))
        task.ran = True
        self._done(task, action, "ran")

    def _changed_meanwhile(self, task: Task) -> FreezeflowError | None:
        """A result is kept under what its files held, so they must hold it still."""
        (now,) = preimages([task.key_input()], self._store)
        if isinstance(now, FreezeflowError):
            return now
        for change in changes(task.preimage, now):
            return StageFailed(
                "a file that it reads changed while it ran",
                where=change.field,
                hint="Run again when nothing writes to it any more.",
            )
        return None

    def _crashed(self, task: Task, text: str) -> FreezeflowError:
        """Keeps the report of a bug; the user gets one line."""
        last = text.strip().splitlines()[-1]
        path = self._store.keep_crash(
            f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{task.ref.step}",
            f"{task.ref}\n{json.dumps(dict(task.preimage), indent=1)}\n\n{text}",
        )
        return StageFailed(
            f"a fault in {task.step.stage}: {last}",
            hint=f"This is a bug; the report for us is in {path}",
        )

    def _reopen(self, task: Task, lost: Lost) -> None:
        """Has what was lost done again, before a step that needs it."""
        culprit = task.root if lost.by_load else task.needs[0]
        if self._schedule.state(culprit) is State.DONE:
            if culprit.ran:
                self._fail(task, StageFailed(f"{lost.message}, although it has just been made"))
                return
            culprit.must_run = True
            self._tell(StepWarned(ref=culprit.ref, message=f"runs again: {lost.message}"))
        self._schedule.reopen(culprit, task)
        self._look_up_all()

    # ------------------------------------------------------------ ends of steps

    def _done(self, task: Task, action: Action, status: Literal["cached", "ran"]) -> None:
        task.action = action
        self._schedule.done(task)
        self._end(task, task.ended(status, self._store.blobs))

    def _fail(
        self,
        task: Task,
        error: FreezeflowError,
        log: bytes = b"",
        evidence: Path | None = None,
    ) -> None:
        if not error.where:
            error.where = str(task.ref)
        kept = self._keep_evidence(task, evidence)
        if kept is not None:
            error.hint = f"{error.hint}\n  Replay it: freezeflow replay {kept}".strip()
        failed = StepResult(
            ref=task.ref,
            stage=task.step.stage,
            status="failed",
            key=task.key if task.key.hex else None,
            error=error,
            log_end="\n".join(log.decode(errors="replace").splitlines()[-_LOG_LINES:]),
            log=self._keep_log(task.ref, log),
            facts_json=evidence_facts(kept),
            evidence=kept,
        )
        self._end(task, failed)
        self._end_skipped(self._schedule.failed(task))
        if not self._options.keep_going:
            self._stopping = True
            self._skip([*self._queue.take_all(), *self._schedule.unfinished()])

    def _skip(self, tasks: Sequence[Task]) -> None:
        self._end_skipped(self._schedule.skip(tasks))

    def _end_skipped(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._end(task, StepResult(ref=task.ref, stage=task.step.stage, status="skipped"))

    def _end(self, task: Task, result: StepResult) -> None:
        task.result = result
        # Of thousands of steps only what is told of them stays in memory.
        task.preimage = {}
        self._open[task.ref[:2]] -= 1
        if not self._open[task.ref[:2]]:
            for done in self._by_plan.pop(task.ref[:2]):
                done.action = None
        self._tell(StepEnded(result=result))

    def _keep_evidence(self, task: Task, evidence: Path | None) -> Path | None:
        if evidence is None or evidence.is_symlink() or not evidence.is_dir():
            return None
        recipe, step = task.ref.place
        return self._store.failures.keep(
            file_name(task.ref), evidence, recipe=recipe, step=step, key=task.key
        )

    def _keep_log(self, ref: StepRef, log: bytes) -> Path | None:
        if not log:
            return None
        path = self._store.folder / "logs" / f"{file_name(ref)}.txt"
        write_atomically(path, [log])
        return path


def _is_many(tasks: Sequence[Task]) -> bool:
    """Whether steps could run side by side: they are not one chain."""
    needed = [task.needs[0] for task in tasks if task.needs]
    return len({task.ref[:2] for task in tasks}) > 1 or len(set(needed)) < len(needed)


def _read_log(scratch: Path) -> bytes:
    try:
        return (scratch / LOG_NAME).read_bytes()
    except FileNotFoundError:
        return b""
