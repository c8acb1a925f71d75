"""Which of the steps that are ready may start: one of each key, with memory, where no other run is."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable

from freezeflow.engine.memory import Memory, Wanted
from freezeflow.engine.tasks import Task
from freezeflow.store.key_locks import KeyLocks

# Steps that are passed over while one is looked for that may start.
_PASSED = 64


class Answer(enum.Enum):
    """What may be done with a step now."""

    START = "start"
    DONE = "done"  # it has its result meanwhile
    WAIT = "wait"
    WAIT_FOR_OTHERS = "wait for others"  # another run is making it


class Queue:
    """Steps that are ready, those of chains that have begun in front."""

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        # At the last call of `next`, what another run is making was all that could be had.
        self.waits_for_others = False

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def put_in_front(self, tasks: Iterable[Task]) -> None:
        self._tasks.extendleft(reversed(list(tasks)))

    def put_behind(self, tasks: Iterable[Task]) -> None:
        self._tasks.extend(tasks)

    def tasks(self) -> list[Task]:
        return list(self._tasks)

    def take_all(self) -> list[Task]:
        tasks = list(self._tasks)
        self._tasks.clear()
        return tasks

    def next(self, ask: Callable[[Task], Answer]) -> Task | None:
        """The first step that may start; those that must wait keep their place."""
        passed: list[Task] = []
        self.waits_for_others = False
        try:
            while self._tasks and len(passed) < _PASSED:
                task = self._tasks.popleft()
                answer = ask(task)
                if answer is Answer.START:
                    return task
                if answer is not Answer.DONE:
                    passed.append(task)
                    self.waits_for_others |= answer is Answer.WAIT_FOR_OTHERS
        finally:
            self._tasks.extendleft(reversed(passed))
        return None


class Room:
    """What running steps hold: memory, and the locks of their keys.

    Args:
        memory: The memory that they share.
        locks: The locks of this run.
        past_peak: Tells what a step took the last time; 0 where that is not known.
    """

    def __init__(self, memory: Memory, locks: KeyLocks, past_peak: Callable[[Task], int]) -> None:
        self._memory = memory
        self._locks = locks
        self._past_peak = past_peak
        self._holders: dict[str, tuple[Task, Wanted]] = {}

    def ask(self, task: Task) -> Answer:
        """Takes the lock of a step for which there is room."""
        if any(other.key == task.key for other, _ in self._holders.values()):
            return Answer.WAIT
        if not self._memory.fits(self._wanted(task)):
            return Answer.WAIT
        return Answer.START if self._locks.take(task.key) else Answer.WAIT_FOR_OTHERS

    def start(self, name: str, task: Task) -> None:
        """A step begins; it has its lock."""
        wanted = self._wanted(task)
        self._holders[name] = (task, wanted)
        self._memory.start(name, wanted)

    def end(self, name: str, peak: int) -> None:
        """A step has ended, and what it gave is kept: others may have its lock."""
        task, wanted = self._holders.pop(name)
        self._memory.end(name, wanted, peak)
        self._locks.give_back(task.key)

    def leave(self, task: Task) -> None:
        """A step that had its lock does not start."""
        self._locks.give_back(task.key)

    def _wanted(self, task: Task) -> Wanted:
        if task.past_peak is None:
            task.past_peak = self._past_peak(task)
        given = task.given
        model_bytes = given.facts.get("tensor_bytes", 0) if given else 0
        step = task.step
        return Wanted(step.stage, step.in_tensorflow, model_bytes, task.past_peak, task.attempts)
