"""Where steps run: in this process, or in others on this machine.

An executor is all that the engine knows of it: orders and reports are plain data, and pass through a
step's scratch folder. (Whole chains run elsewhere: `chains.py`.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from freezeflow.engine.forkserver import ForkServer
from freezeflow.engine.orders import Ended, Work
from freezeflow.engine.processes import Processes, Residents, wait_for
from freezeflow.engine.resident import Models
from freezeflow.values import Digest

# What the server imports before it forks.
TENSORFLOW_PRELOAD = ("freezeflow.tf.preload",)

# One BLAS thread, because threads do not survive a fork.
TENSORFLOW_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}


class Executor(Protocol):
    """What runs work. Every piece of work that was started comes back by `wait` exactly once."""

    def start(self, work: Work) -> None:
        """Begins some work; may come back only when it is done."""

    def wait(self, seconds: float | None = None) -> list[Ended]:
        """Work that has ended; waits until there is some, or for at most so many seconds."""

    def adopt(self, name: str, digest: Digest) -> None:
        """The model that some work gave has this content digest, and may be asked for again."""

    def holds(self, digest: Digest, *, in_tensorflow: bool) -> bool:
        """The next work of this kind, on this model, can be started without the model's files."""

    def stop(self) -> None:
        """Ends everything at once; nothing is left running."""


class InProcess:
    """Runs work in this process, one after another; models stay in memory between steps."""

    def __init__(self) -> None:
        self._ended: list[Ended] = []
        self._models = Models()

    def start(self, work: Work) -> None:
        from freezeflow.engine.worker import perform

        order = work.order
        with open(order.log, "w", encoding="utf-8", errors="backslashreplace") as log:
            report, model = perform(order, self._models.get(work.model_digest), log)
        self._models.give(work.name, report, model, order.scratch)
        self._ended.append(Ended(work.name, report))

    def wait(self, seconds: float | None = None) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def adopt(self, name: str, digest: Digest) -> None:
        self._models.keep(name, digest)

    def holds(self, digest: Digest, *, in_tensorflow: bool) -> bool:
        return digest in self._models

    def stop(self) -> None:
        self._models.clear()


class LocalExecutor:
    """Work that needs TensorFlow in fresh processes of its own; other work in this one, or in others.

    Args:
        folder: Where the processes may write what they print.
        apart: Other work runs in processes, too, so that it runs side by side and what kills one
            step ends no other.
    """

    def __init__(self, folder: Path, *, apart: bool) -> None:
        self._tensorflow = Processes(
            lambda: ForkServer(
                TENSORFLOW_PRELOAD, TENSORFLOW_ENVIRONMENT, folder / "tensorflow-server.txt"
            ),
            "TensorFlow",
        )
        self._plain: InProcess | Residents = InProcess()
        if apart:
            self._plain = Residents(folder / "resident.txt")

    def expect_tensorflow(self) -> None:
        """Some work will need TensorFlow: begins to load it."""
        self._tensorflow.warm_up()

    def start(self, work: Work) -> None:
        (self._tensorflow if work.in_tensorflow else self._plain).start(work)

    def wait(self, seconds: float | None = None) -> list[Ended]:
        if isinstance(self._plain, InProcess):
            return self._plain.wait() or self._tensorflow.wait(seconds)
        return wait_for([self._tensorflow, self._plain], seconds)

    def adopt(self, name: str, digest: Digest) -> None:
        self._plain.adopt(name, digest)

    def holds(self, digest: Digest, *, in_tensorflow: bool) -> bool:
        return not in_tensorflow and self._plain.holds(digest, in_tensorflow=False)

    def stop(self) -> None:
        self._tensorflow.stop()
        self._plain.stop()


class MakeExecutor(Protocol):
    """Makes an executor for one run.

    Args:
        folder: Where its processes may write what they print.
        apart: Steps may run side by side.
    """

    def __call__(self, folder: Path, *, apart: bool) -> LocalExecutor: ...
