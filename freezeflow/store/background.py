"""Checking and hashing of weights beside other work, in a second thread.

In a chain that runs in one process, what `load` has to know of the weights is whether they are what the
checkpoint says, and their digests: the first only before anything is published, the second mostly never.
So both are found while later stages work and while the weights are copied; whoever publishes waits, and
throws away what was written if a checksum turns out to be wrong.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Generic, TypeVar

from freezeflow.store import kernel
from freezeflow.values import Digest

T = TypeVar("T")

# Checks stay no further ahead of a copy than this.
_LEAD_BYTES = 64 * 1024 * 1024


class Stopped(Exception):
    """Nobody wants the result any more."""


class Pending(Generic[T]):
    """A result that is being worked out."""

    def __init__(self, job: Callable[[], T]) -> None:
        self._job = job
        self._done = threading.Event()
        self._value: T
        self._failure: BaseException | None = None

    def result(self) -> T:
        """The result, once it is there; raises what the job raised."""
        self._done.wait()
        if self._failure is not None:
            raise self._failure
        return self._value

    def run(self) -> None:
        try:
            self._value = self._job()
        except BaseException as error:  # noqa: BLE001  whoever asks for the result gets it
            self._failure = error
        self._done.set()


class PendingDigest(Digest):
    """A digest that is known when somebody asks for it."""

    __slots__ = ()

    def __new__(cls, find: Callable[[], str]) -> PendingDigest:
        # The place of the text holds what finds it.
        return tuple.__new__(cls, (find,))

    @property
    def hex(self) -> str:
        find: Callable[[], str] = self[0]  # type: ignore[assignment]
        return find()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and self.hex == other.hex

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.hex,))

    def __repr__(self) -> str:
        return f"Digest(hex={self.hex!r})"


class Background:
    """A thread that works through jobs in order, and the digests of files that it finds on the way."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Pending[object] | None] = queue.SimpleQueue()
        self._started: list[Pending[object]] = []
        self._thread: threading.Thread | None = None
        # What jobs have read, what was copied meanwhile, and how many copies are being made.
        self._moved = threading.Condition()
        self._read = self._copied = self._copies = 0
        self._stopped = False
        self.files: dict[Path, Digest] = {}

    def start(self, job: Callable[[], T]) -> Pending[T]:
        """Puts a job behind those that wait."""
        pending = Pending(job)
        self._started.append(pending)  # type: ignore[arg-type]
        self._jobs.put(pending)  # type: ignore[arg-type]
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        return pending

    def settle(self) -> None:
        """Waits for all jobs; raises what the first one that failed raised."""
        for pending in self._started:
            pending.result()

    def first_failure(self) -> BaseException | None:
        """What the first job that has failed so far raised."""
        failed = (p._failure for p in self._started)
        return next((failure for failure in failed if failure is not None), None)

    def read(self, count: int) -> None:
        """For jobs, before each piece that they read: waits while they are too far ahead of a copy.

        Two who ask a disk for much at two places keep each other waiting; the copy is what takes longer.

        Raises:
            Stopped: Nobody wants the result any more.
        """
        with self._moved:
            self._moved.wait_for(self._may_read)
            if self._stopped:
                raise Stopped
            before, self._read = self._read, self._read + count
        # Little is read at once, also where other processes leave no core free.
        is_much = before <= _LEAD_BYTES < self._read
        if is_much and threading.current_thread() is self._thread:
            kernel.give_way()

    def _may_read(self) -> bool:
        return self._stopped or not self._copies or self._read <= self._copied + _LEAD_BYTES

    @contextlib.contextmanager
    def copying(self) -> Iterator[Callable[[int], None]]:
        """While the block runs, weights are copied; what it gives is told how many bytes each time."""

        def copied(count: int) -> None:
            with self._moved:
                self._copied += count
                self._moved.notify()

        self._add_copy(1)
        try:
            yield copied
        finally:
            self._add_copy(-1)

    def _add_copy(self, count: int) -> None:
        with self._moved:
            self._copies += count
            self._moved.notify()

    def stop(self) -> None:
        """Ends the thread soon, whatever is left to do."""
        with self._moved:
            self._stopped = True
            self._moved.notify()
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (pending := self._jobs.get()) is not None:
            pending.run()


class _OnDemand(Pending[T]):
    """A result that is worked out when somebody asks for it."""

    def result(self) -> T:
        if not self._done.is_set():
            self.run()
        return super().result()


class _Unhurried(Background):
    """Does nothing before a result is asked for; mostly nobody asks."""

    def start(self, job: Callable[[], T]) -> Pending[T]:
        return _OnDemand(job)


_present: ContextVar[Background | None] = ContextVar("background", default=None)


def present() -> Background | None:
    """Where checks may go on beside other work; None where they have to be made at once."""
    return _present.get()


@contextlib.contextmanager
def background() -> Iterator[Background]:
    """While the block runs, weights that are read are checked beside it.

    Raises:
        FreezeflowError: At the end of the block, or in place of what it raised: a check failed.
    """
    found = Background()
    token = _present.set(found)
    try:
        yield found
        found.settle()
    except Exception:
        # What follows from damaged weights is not what is wrong.
        failure = found.first_failure()
        if failure is not None:
            raise failure from None
        raise
    finally:
        _present.reset(token)
        found.stop()


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """While the block runs, weights are not read, but where somebody asks for their digests.

    For those who only look; nothing may be published.
    """
    token = _present.set(_Unhurried())
    try:
        yield
    finally:
        _present.reset(token)


@contextlib.contextmanager
def copying() -> Iterator[Callable[[int], None]]:
    """As `Background.copying`, where there is one."""
    found = _present.get()
    if found is None:
        yield lambda count: None
    else:
        with found.copying() as copied:
            yield copied


def settle() -> None:
    """Waits until all weights that were read are checked; to be called before anything is published.

    Raises:
        FreezeflowError: A check failed.
    """
    found = _present.get()
    if found is not None:
        found.settle()
