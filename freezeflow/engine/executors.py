"""Where steps run: in this process, or in processes of their own on this machine."""

from __future__ import annotations

import dataclasses
import select
import signal
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from freezeflow.engine.forkserver import ForkServer, ServerDied
from freezeflow.engine.orders import Order, Report
from freezeflow.errors import StageFailed
from freezeflow.values import Digest

if TYPE_CHECKING:
    from freezeflow.graph.model import Model

# What the two kinds of servers import before they fork.
TENSORFLOW_PRELOAD = ("freezeflow.tf.preload",)
PLAIN_PRELOAD = ("freezeflow.engine.worker", "freezeflow.graph.storage", "freezeflow.graph.verify")

# One BLAS thread, because threads do not survive a fork.
TENSORFLOW_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A step that is to run.

    Args:
        name: Unique among the work of one executor; letters, digits and dashes.
        order: What to do.
        in_tensorflow: It needs a process with TensorFlow.
        model_digest: Content digest of the order's model; None for ``load``.
        seconds: It is ended after so long; None for no limit.
    """

    name: str
    order: Order
    in_tensorflow: bool
    model_digest: Digest | None
    seconds: float | None = None


class Executor(Protocol):
    """What runs work. Every piece of work that was started comes back by `wait` exactly once."""

    def start(self, work: Work) -> None:
        """Begins some work; may come back only when it is done."""

    def wait(self) -> list[tuple[str, Report]]:
        """Names and reports of work that has ended; waits until there is some."""

    def adopt(self, name: str, digest: Digest) -> None:
        """The model that some work gave has this content digest, and may be asked for again."""

    def holds(self, digest: Digest, *, in_tensorflow: bool) -> bool:
        """Work of this kind on this model can be started without the model's files."""

    def stop(self) -> None:
        """Ends everything at once; nothing is left running."""


class InProcess:
    """Runs work in this process, one after another; models stay in memory between steps."""

    # The last model, and the one before it where a chain branches.
    _KEPT_MODELS = 2

    def __init__(self) -> None:
        self._ended: list[tuple[str, Report]] = []
        self._given: dict[str, Model] = {}
        self._models: OrderedDict[Digest, Model] = OrderedDict()

    def start(self, work: Work) -> None:
        from freezeflow.engine.worker import perform

        known = self._models.get(work.model_digest) if work.model_digest else None
        path = work.order.log
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as log:
            report, model = perform(work.order, known, log)
        if model is not None and not _uses(report, work.order.scratch):
            self._given[work.name] = model
        self._ended.append((work.name, report))

    def wait(self) -> list[tuple[str, Report]]:
        ended, self._ended = self._ended, []
        return ended

    def adopt(self, name: str, digest: Digest) -> None:
        model = self._given.pop(name, None)
        if model is None:
            return
        self._models[digest] = model
        self._models.move_to_end(digest)
        while len(self._models) > self._KEPT_MODELS:
            self._models.popitem(last=False)

    def holds(self, digest: Digest, *, in_tensorflow: bool) -> bool:
        return digest in self._models

    def stop(self) -> None:
        self._models.clear()


class Processes:
    """Runs each piece of work in a fresh process of its own, forked from a server.

    Args:
        make_server: Starts the server; called when it is first needed.
        what: What the server brings, for messages.
    """

    def __init__(self, make_server: Callable[[], ForkServer], what: str) -> None:
        self._make_server = make_server
        self._what = what
        self._server: ForkServer | None = None
        self._running: dict[str, Work] = {}
        self._deadlines: dict[str, float] = {}
        self._late: set[str] = set()

    def warm_up(self) -> None:
        """Starts the server, so that it is ready when work comes."""
        if self._server is None:
            self._server = self._make_server()

    def start(self, work: Work) -> None:
        self.warm_up()
        assert self._server is not None
        work.order.save()
        self._running[work.name] = work
        if work.seconds is not None:
            self._deadlines[work.name] = time.monotonic() + work.seconds
        try:
            self._server.run(work.name, work.order.scratch)
        except ServerDied:
            # `wait` finds the same and reports it for all that was running.
            return

    @property
    def busy(self) -> bool:
        """Something is running."""
        return bool(self._running)

    def fileno(self) -> int:
        assert self._server is not None
        return self._server.fileno()

    def seconds_left(self) -> float | None:
        """Until the next limit; None where nothing that runs has one."""
        if not self._deadlines:
            return None
        return max(0.0, min(self._deadlines.values()) - time.monotonic())

    def wait(self) -> list[tuple[str, Report]]:
        while self._running:
            wait_for([self])
            if ended := self.collect():
                return ended
        return []

    def collect(self) -> list[tuple[str, Report]]:
        """What has ended by now, without waiting; ends what takes too long."""
        assert self._server is not None
        self._end_late(self._server)
        readable, _, _ = select.select([self._server], [], [], 0)
        if not readable:
            return []
        try:
            exits = self._server.exits()
        except ServerDied as error:
            return self._all_lost(error)
        return [(name, self._report(name, code)) for name, code in exits]

    def adopt(self, name: str, digest: Digest) -> None:
        """Nothing to do: models pass through the store."""

    def holds(self, digest: Digest, *, in_tensorflow: bool) -> bool:
        return False

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
        self._running.clear()
        self._deadlines.clear()

    def _end_late(self, server: ForkServer) -> None:
        now = time.monotonic()
        for name in [name for name, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[name]
            self._late.add(name)
            server.kill(name)

    def _report(self, name: str, code: int) -> Report:
        work = self._running.pop(name)
        self._deadlines.pop(name, None)
        if name in self._late:
            hint = "allow more time, or make the step smaller"
            return Report(
                failure=StageFailed(f"was ended after {work.seconds:g} seconds", hint=hint)
            )
        if code < 0:
            return Report(failure=killed(-code))
        report = Report.load(work.order.scratch)
        if report is None:
            return Report(failure=StageFailed(f"its process ended with code {code}", hint=_SEE_LOG))
        return report

    def _all_lost(self, error: ServerDied) -> list[tuple[str, Report]]:
        failure = StageFailed(f"{self._what} could not be started, or has died: {error}")
        names = list(self._running)
        self.stop()
        return [(name, Report(failure=failure)) for name in names]


class LocalExecutor:
    """Work that needs TensorFlow in processes of its own, other work in this one.

    With more than one job, other work gets processes of its own, too (without TensorFlow), so that
    it runs side by side.

    Args:
        jobs: How many pieces of work its caller runs at once.
        folder: Where the servers may write what they print.
    """

    def __init__(self, jobs: int, folder: Path) -> None:
        self._tensorflow = Processes(
            lambda: ForkServer(
                TENSORFLOW_PRELOAD, TENSORFLOW_ENVIRONMENT, folder / "tensorflow-server.txt"
            ),
            "TensorFlow",
        )
        self._plain: InProcess | Processes = InProcess()
        if jobs > 1:
            self._plain = Processes(
                lambda: ForkServer(PLAIN_PRELOAD, {}, folder / "plain-server.txt"), "a process"
            )

    def expect_tensorflow(self) -> None:
        """Some work will need TensorFlow: begins to load it."""
        self._tensorflow.warm_up()

    def start(self, work: Work) -> None:
        (self._tensorflow if work.in_tensorflow else self._plain).start(work)

    def wait(self) -> list[tuple[str, Report]]:
        if isinstance(self._plain, InProcess) and (ended := self._plain.wait()):
            return ended
        kinds = [self._tensorflow, self._plain]
        while busy := [kind for kind in kinds if isinstance(kind, Processes) and kind.busy]:
            wait_for(busy)
            if reports := [report for kind in busy for report in kind.collect()]:
                return reports
        return []

    def adopt(self, name: str, digest: Digest) -> None:
        self._plain.adopt(name, digest)

    def holds(self, digest: Digest, *, in_tensorflow: bool) -> bool:
        return not in_tensorflow and self._plain.holds(digest, in_tensorflow=False)

    def stop(self) -> None:
        self._tensorflow.stop()
        self._plain.stop()


def wait_for(kinds: list[Processes]) -> None:
    """Waits until one has something to collect, or a limit is reached."""
    limits = [left for kind in kinds if (left := kind.seconds_left()) is not None]
    select.select(kinds, [], [], min(limits) if limits else None)


_SEE_LOG = "the end of its log follows"


def killed(number: int) -> StageFailed:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    hints = {
        signal.SIGKILL: "mostly this is the kernel, out of memory; run it where there is more",
        signal.SIGXCPU: "it used up its processor time",
        signal.SIGSEGV: "TensorFlow itself crashed; the end of its log follows",
        signal.SIGABRT: "TensorFlow itself gave up; the end of its log follows",
    }
    hint = hints.get(number, _SEE_LOG)  # type: ignore[call-overload]
    return StageFailed(f"its process was killed by {name}", hint=hint)


def _uses(report: Report, scratch: Path) -> bool:
    """Whether the model's tensors lie in the scratch folder, which is removed."""
    if report.model is None:
        return False
    below = f"{scratch}/"
    return any(location.path.startswith(below) for location in report.model.tensors.values())
