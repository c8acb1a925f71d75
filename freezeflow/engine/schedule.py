"""Which step may go next: a pure account of what is waiting, ready, running and done."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

S = TypeVar("S")


class State(enum.Enum):
    """Where a step is."""

    WAITING = "waiting"
    READY = "ready"
    TAKEN = "taken"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class Schedule(Generic[S]):
    """The states of steps that need each other.

    Args:
        needs: Each step to the steps that must be done before it, in topological order.

    Raises:
        ValueError: A step needs one that does not come before it.
    """

    def __init__(self, needs: Mapping[S, Sequence[S]]) -> None:
        self._needs: dict[S, Sequence[S]] = {}
        self._users: dict[S, list[S]] = {}
        self._open: dict[S, int] = {}
        self._states: dict[S, State] = {}
        self._ready: list[S] = []
        self.add(needs)

    def add(self, needs: Mapping[S, Sequence[S]]) -> None:
        """More steps, as for the constructor; they may need those that are there."""
        for step, needed in needs.items():
            for other in needed:
                if other not in self._states:
                    raise ValueError(f"{step} needs {other}, which does not come before it")
                self._users[other].append(step)
            self._needs[step] = needed
            self._users[step] = []
            self._open[step] = len(needed)
            self._states[step] = State.WAITING
            self._wake(step)

    def forget(self, steps: Iterable[S]) -> None:
        """These steps are over, and no others need them."""
        for step in steps:
            for known in (self._needs, self._users, self._open, self._states):
                del known[step]

    def state(self, step: S) -> State:
        return self._states[step]

    def take(self) -> list[S]:
        """All steps whose needs are done and that nobody has taken; they are taken now."""
        taken, self._ready = self._ready, []
        for step in taken:
            self._states[step] = State.TAKEN
        return taken

    def done(self, step: S) -> None:
        """A taken step has a result."""
        self._states[step] = State.DONE
        for user in self._users[step]:
            self._open[user] -= 1
            self._wake(user)

    def failed(self, step: S) -> list[S]:
        """A taken step has failed; returns the steps that can never run now, in order."""
        self._states[step] = State.FAILED
        return self.skip(self._users[step])

    def skip(self, steps: Sequence[S]) -> list[S]:
        """These steps and those that need them will not run; returns all of them, in order."""
        skipped = []
        pending = list(steps)
        while pending:
            step = pending.pop(0)
            if self._states[step] in (State.WAITING, State.READY, State.TAKEN):
                self._states[step] = State.SKIPPED
                skipped.append(step)
                pending += self._users[step]
        self._ready = [step for step in self._ready if self._states[step] is State.READY]
        return skipped

    def unfinished(self) -> list[S]:
        """Steps that are waiting or ready, in order."""
        return [s for s, state in self._states.items() if state in (State.WAITING, State.READY)]

    def reopen(self, lost: S, waiting: S) -> list[S]:
        """What a done step gave has been lost: it must be done again, and a taken one waits for it.

        Returns the steps that were done and are not any more.

        Args:
            lost: The step whose result is lost.
            waiting: A taken step that needs it, directly or through others; those in between are
                done again, too.
        """
        between = self._reached({lost}, self._users) & self._reached({waiting}, self._needs)
        undone = [step for step in between if self._states[step] is State.DONE]
        for step in (waiting, *undone):
            self._states[step] = State.WAITING
        self._ready = []
        for step, needed in self._needs.items():
            if self._states[step] in (State.WAITING, State.READY):
                self._states[step] = State.WAITING
                self._open[step] = sum(self._states[other] is not State.DONE for other in needed)
                self._wake(step)
        return undone

    def _reached(self, start: set[S], edges: Mapping[S, Sequence[S]]) -> set[S]:
        reached, pending = set(start), list(start)
        while pending:
            new = [step for step in edges[pending.pop()] if step not in reached]
            reached.update(new)
            pending += new
        return reached

    def _wake(self, step: S) -> None:
        if self._open[step] == 0 and self._states[step] is State.WAITING:
            self._states[step] = State.READY
            self._ready.append(step)
