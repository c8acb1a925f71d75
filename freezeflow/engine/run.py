"""Drives plans: looks steps up, runs those that are not cached, keeps what they give."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freezeflow.context import EVIDENCE
from freezeflow.engine.admission import Answer, Queue, Room
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
from freezeflow.engine.evidence import evidence_facts, file_name
from freezeflow.engine.interruption import interruptible
from freezeflow.engine.keeping import Keeper, Lost
from freezeflow.engine.keys import changes, preimages
from freezeflow.engine.looking_up import cached, uncollected
from freezeflow.engine.memory import Memory
from freezeflow.engine.options import RunOptions
from freezeflow.engine.orders import LOG_NAME, Ended, Report, Work
from freezeflow.engine.results import RunResult, StepRef, StepResult, StepResults
from freezeflow.engine.schedule import Schedule, State
from freezeflow.engine.shared_on_demand import SharedOnDemand
from freezeflow.engine.survey import look_up
from freezeflow.engine.tasks import Task, check_only, make_tasks, order_of, wanted
from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.plan import Plan, Step
from freezeflow.store.actions import Action, ActionFile, PublishedFile, canonical_json, key_of
from freezeflow.store.files import remove_tree, write_atomically, writing_failed
from freezeflow.store.store import Store

if TYPE_CHECKING:
    from freezeflow.engine.executors import Executor, LocalExecutor, MakeExecutor

# Lines of a failed step's log that are shown.
_LOG_LINES = 20

# Plans that are open at once, at most; and those that are looked up together beforehand.
_OPEN = 128
_AHEAD = 256

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
    """One run.

    Few plans are open at a time: their steps are looked up, run and ended, and then only a little is
    left of them, so that a run of thousands takes no more memory than one of some.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        store: Store,
        options: RunOptions,
        on_event: OnEvent,
        make_executor: MakeExecutor | None,
    ) -> None:
        check_only(plans, options.only)
        self._plans = {(plan.recipe, plan.name): plan for plan in plans}
        self._store = store
        self._options = options
        self._tell = on_event
        self._make_executor = make_executor
        self._results = StepResults(self._plans)
        # Plans that are not open yet, and the steps of those that are.
        self._waiting: deque[Plan] = deque()
        self._open: dict[tuple[Path, str], list[Task]] = {}
        self._schedule: Schedule[Task] = Schedule({})
        self._queue = Queue()
        self._running: dict[str, Task] = {}
        self._counter = 0
        # A step has failed, or Ctrl-C was pressed, and no other may begin.
        self._stopping = False
        self._interrupted = False
        # Steps run in other processes, which Ctrl-C lets finish.
        self._apart = False
        self._shared = SharedOnDemand(options.remote, store, on_event)

    def go(self) -> RunResult:
        started = time.perf_counter()
        counts = [len(wanted(plan, self._options.only)) for plan in self._plans.values()]
        self._tell(RunStarted(steps=sum(counts), plans=sum(map(bool, counts))))
        try:
            with uncollected():
                self._look_ahead()
                self._open_more()
            if self._queue:
                self._run_all()
            self._shared.settle()
        finally:
            self._shared.close()
        result = RunResult(steps=self._results, seconds=time.perf_counter() - started)
        self._tell(RunEnded(result=result))
        if self._interrupted:
            raise KeyboardInterrupt
        return result

    # ------------------------------------------------------------ opening and closing plans

    def _look_ahead(self) -> None:
        """Of many plans first ends those of which everything is cached; the others wait."""
        plans = list(self._plans.values())
        if self._options.force or len(plans) <= _OPEN:
            self._waiting.extend(plans)
            return
        for start in range(0, len(plans), _AHEAD):
            self._look_ahead_at(plans[start : start + _AHEAD])

    def _look_ahead_at(self, plans: Sequence[Plan]) -> None:
        tasks = look_up(plans, self._store, self._shared.fetch, only=self._options.only)
        missed = {task.ref[:2] for task in tasks if task.action is None}
        self._waiting += (plan for plan in plans if (plan.recipe, plan.name) in missed)
        idle = [task for task in tasks if task.ref[:2] not in missed]
        results = [task.ended("cached", self._store.blobs) for task in idle]
        self._note_cached(results)
        for result in results:
            self._tell(StepEnded(result=result))
        for _, of_plan in groupby(results, lambda result: result.ref[:2]):
            self._finish(list(of_plan))

    def _open_more(self) -> None:
        """Opens plans that wait while there are few open ones, and looks them up."""
        while self._waiting and len(self._open) <= _OPEN // 2 and not self._stopping:
            for _ in range(min(len(self._waiting), _OPEN - len(self._open))):
                self._open_next()
            self._look_up_all()

    def _open_next(self) -> list[Task]:
        plan = self._waiting.popleft()
        tasks = make_tasks(plan, self._options.only)
        if tasks:
            self._open[plan.recipe, plan.name] = tasks
            self._schedule.add({task: task.needs for task in tasks})
        return tasks

    def _close(self, place: tuple[Path, str]) -> None:
        """All steps of a plan have ended: only what is told of them stays in memory."""
        tasks = self._open.pop(place)
        results = [task.result for task in tasks if task.result]
        self._schedule.forget(tasks)
        self._note_cached(results)
        self._finish(results)

    def _finish(self, results: Sequence[StepResult]) -> None:
        self._results.put(results)
        self._tell(PlanEnded(results=results))

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
            self._queue.put_in_front([task for task in missed if task.has_begun])
            self._queue.put_behind([task for task in missed if not task.has_begun])

    def _forced(self, task: Task) -> bool:
        return not task.ran and (self._options.force or task.must_run)

    def _use_cached(self, tasks: Sequence[Task]) -> list[Task]:
        """Gives those tasks their results that have one; returns the others."""
        found = cached([(task.key, task.step) for task in tasks], self._store)
        unknown = [task for task, (action, _) in zip(tasks, found, strict=True) if action is None]
        if unknown and self._shared.fetch([task.wish() for task in unknown]):
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

    def _note_cached(self, results: Sequence[StepResult]) -> None:
        """Remembers which action each cached step used, where that is news."""
        used = {
            step.ref.place: step.key for step in results if step.status == "cached" and step.key
        }
        noted = self._store.actions.noted(used)
        news = ((*place, key) for place, key in used.items() if noted.get(place) != key)
        self._store.actions.note(list(news))

    # ------------------------------------------------------------ running

    def _executor(self, scratch: Path) -> LocalExecutor:
        from freezeflow.engine.executors import LocalExecutor

        return (self._make_executor or LocalExecutor)(scratch, apart=self._apart)

    def _run_all(self) -> None:
        jobs = max(1, self._options.jobs)
        with self._store.scratch() as scratch, self._store.key_locks() as locks:
            self._room = Room(Memory(self._options.mem_limit), locks, self._past_peak)
            unfinished = [*self._queue.tasks(), *self._schedule.unfinished()]
            self._apart = bool(self._waiting) or _is_many(unfinished)
            executor = self._executor(scratch)
            keeper = Keeper(self._store, executor, self._shared.fetch_weights)
            try:
                if any(step.in_tensorflow for step in self._unfinished_steps(unfinished)):
                    executor.expect_tensorflow()
                while self._queue or self._running:
                    while len(self._running) < jobs and (task := self._queue.next(self._ask)):
                        self._start(task, executor, keeper, scratch)
                    for name, report in self._wait(executor):
                        self._take(name, scratch / name, report, keeper)
                    self._look_up_all()
                    self._open_more()
                    self._heed_interrupt()
            finally:
                executor.stop()

    def _unfinished_steps(self, tasks: Sequence[Task]) -> Iterator[Step]:
        yield from (task.step for task in tasks)
        for plan in self._waiting:
            yield from wanted(plan, self._options.only)

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
        noted = self._store.actions.noted([task.ref.place])
        found = self._store.actions.get(noted.values())
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
        self._stop()
        number = len(self._running)
        what = f"{number} steps that run now are" if number != 1 else "1 step that runs now is"
        message = f"interrupted: {what} finished first; Ctrl-C again ends {'them' if number != 1 else 'it'}"
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
        self._tell(StepStarted(ref=task.ref, stage=task.step.stage))
        self._running[name] = task
        self._room.start(name, task)
        work = Work(
            name=name,
            order=order_of(task, model, scratch / name, self._options),
            in_tensorflow=in_tensorflow,
            model_digest=given.outputs.model if given else None,
            seconds=self._options.step_seconds,
        )
        try:
            (scratch / name).mkdir()
            executor.start(work)
        except OSError as error:
            raise writing_failed(error, scratch / name) from error

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
        self._shared.push(task.wish(), action)
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
        for undone in self._schedule.reopen(culprit, task):
            undone.result = None
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
        skipped = self._schedule.failed(task)
        self._end(task, failed)
        self._end_skipped(skipped)
        if not self._options.keep_going:
            self._stop()

    def _stop(self) -> None:
        """No step begins any more."""
        self._stopping = True
        self._skip([*self._queue.take_all(), *self._schedule.unfinished()])
        while self._waiting:
            self._skip(self._open_next())

    def _skip(self, tasks: Sequence[Task]) -> None:
        self._end_skipped(self._schedule.skip(tasks))

    def _end_skipped(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._end(task, task.skipped())

    def _end(self, task: Task, result: StepResult) -> None:
        task.result = result
        self._tell(StepEnded(result=result))
        place = task.ref[:2]
        if all(each.result for each in self._open[place]):
            self._close(place)

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
