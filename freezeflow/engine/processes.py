"""Steps in processes of their own on this machine: fresh ones, and ones that stay for many steps."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from freezeflow.engine.forkserver import ForkServer, ServerDied
from freezeflow.engine.orders import Ended, Report, Work
from freezeflow.errors import StageFailed
from freezeflow.machine import out_of_memory_kills
from freezeflow.values import Digest

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "import freezeflow.engine.worker, freezeflow.graph.storage, freezeflow.graph.verify;"
    "from freezeflow.engine.resident import serve; serve(int(sys.argv[2]))"
)

_PIPE_BYTES = 65536

# A process that stays ends after so many steps: what libraries leak is given back.
_STEPS = 2000


class Group(Protocol):
    """Processes of one kind that run work side by side."""

    def busy(self) -> bool:
        """Something is running."""

    def files(self) -> list[int]:
        """File descriptors that become readable when something has ended."""

    def seconds_left(self) -> float | None:
        """Until the next limit; None where nothing that runs has one."""

    def collect(self) -> list[Ended]:
        """What has ended by now, without waiting; ends what takes too long."""


def wait_for(groups: Sequence[Group], seconds: float | None) -> list[Ended]:
    """What has ended in one of some groups.

    Args:
        groups: The groups.
        seconds: Waits at most so long; None for until something ends.
    """
    until = None if seconds is None else time.monotonic() + seconds
    while busy := [group for group in groups if group.busy()]:
        left = [limit for group in busy if (limit := group.seconds_left()) is not None]
        if until is not None:
            left.append(max(0.0, until - time.monotonic()))
        select.select(
            [file for group in busy for file in group.files()], [], [], min(left, default=None)
        )
        if ended := [end for group in busy for end in group.collect()]:
            return ended
        if until is not None and time.monotonic() >= until:
            return []
    return []


class _Clock:
    """Until when each piece of work may run."""

    def __init__(self) -> None:
        self._deadlines: dict[str, float] = {}
        self._late: set[str] = set()
        # How many processes the kernel had ended for want of memory when each piece of work began.
        self._kills: dict[str, int] = {}

    def start(self, work: Work) -> None:
        self._kills[work.name] = out_of_memory_kills()
        if work.seconds is not None:
            self._deadlines[work.name] = time.monotonic() + work.seconds

    def seconds_left(self) -> float | None:
        if not self._deadlines:
            return None
        return max(0.0, min(self._deadlines.values()) - time.monotonic())

    def run_out(self) -> list[str]:
        """Work whose time is over, each told once."""
        now = time.monotonic()
        late = [name for name, deadline in self._deadlines.items() if deadline <= now]
        for name in late:
            del self._deadlines[name]
            self._late.add(name)
        return late

    def end(self, work: Work, code: int, peak: int = 0) -> Report:
        """The report of work whose process has ended.

        Args:
            work: The work.
            code: Its exit code, negative for a signal.
            peak: The most memory that it had, in bytes; 0 where that is not known.
        """
        self._deadlines.pop(work.name, None)
        kills = self._kills.pop(work.name, 0)
        if work.name in self._late:
            self._late.discard(work.name)
            hint = "Allow more time (--step-timeout), or make the step smaller."
            message = f"was ended after {work.seconds:g} seconds"
            return Report(failure=StageFailed(message, hint=hint), lost="timeout")
        if code < 0:
            return _killed_report(-code, peak, out_of_memory_kills() > kills)
        report = Report.load(work.order.scratch)
        if report is None:
            return Report(failure=_died(code, work.order.scratch), lost="died")
        return report

    def clear(self) -> None:
        self._deadlines.clear()


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
        self._clock = _Clock()

    def warm_up(self) -> None:
        """Starts the server, so that it is ready when work comes."""
        if self._server is None:
            self._server = self._make_server()

    def start(self, work: Work) -> None:
        self.warm_up()
        assert self._server is not None
        work.order.save()
        self._running[work.name] = work
        self._clock.start(work)
        # A dead server is found by `collect`, too, and reported for all that was running.
        with contextlib.suppress(ServerDied):
            self._server.run(work.name, work.order.scratch)

    def wait(self, seconds: float | None = None) -> list[Ended]:
        return wait_for([self], seconds)

    def busy(self) -> bool:
        return bool(self._running)

    def files(self) -> list[int]:
        return [] if self._server is None else [self._server.fileno()]

    def seconds_left(self) -> float | None:
        return self._clock.seconds_left()

    def collect(self) -> list[Ended]:
        assert self._server is not None
        try:
            for name in self._clock.run_out():
                self._server.kill(name)
            readable, _, _ = select.select([self._server], [], [], 0)
            exits = self._server.exits() if readable else []
        except ServerDied as error:
            return self._all_lost(error)
        return [
            Ended(name, self._clock.end(self._running.pop(name), code, peak))
            for name, code, peak in exits
        ]

    def adopt(self, name: str, digest: Digest) -> None:
        """Nothing to do: models pass through the store."""

    def holds(self, digest: Digest, *, in_tensorflow: bool) -> bool:
        return False

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
        self._running.clear()
        self._clock.clear()

    def _all_lost(self, error: ServerDied) -> list[Ended]:
        failure = StageFailed(f"{self._what} could not be started, or has died: {error}")
        names = list(self._running)
        self.stop()
        return [Ended(name, Report(failure=failure)) for name in names]


class Residents:
    """Runs work in processes that stay, each one piece of work at a time.

    A process that dies takes down its step alone; the next step gets a new one. Work on a model that
    an idle process has in memory goes there.

    Args:
        output: File that takes what they print outside of steps.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._all: list[_Resident] = []
        self._owners: dict[str, _Resident] = {}
        self._clock = _Clock()

    def start(self, work: Work) -> None:
        work.order.save()
        self._clock.start(work)
        idle = [each for each in self._all if each.work is None]
        # Of those that have not got its model the one that was idle longest.
        fitting = [each for each in idle if work.model_digest in each.models] or idle
        if not fitting:
            self._all.append(_Resident(self._output))
            fitting = self._all[-1:]
        chosen = fitting[0]
        # The idle ones stand in the order in which they became idle.
        self._all.remove(chosen)
        self._all.append(chosen)
        self._owners[work.name] = chosen
        chosen.run(work)

    def wait(self, seconds: float | None = None) -> list[Ended]:
        return wait_for([self], seconds)

    def busy(self) -> bool:
        return any(each.work is not None for each in self._all)

    def files(self) -> list[int]:
        return [each.fileno() for each in self._all if each.work is not None]

    def seconds_left(self) -> float | None:
        return self._clock.seconds_left()

    def collect(self) -> list[Ended]:
        late = set(self._clock.run_out())
        ended = []
        for each in [each for each in self._all if each.work is not None]:
            work = each.work
            assert work is not None
            if work.name in late:
                each.kill()
            code = each.end_of_work()
            if code is None:
                continue
            ended.append(Ended(work.name, self._clock.end(work, code, each.peak)))
            if each.is_over:
                self._all.remove(each)
                each.stop()
        return ended

    def adopt(self, name: str, digest: Digest) -> None:
        owner = self._owners.pop(name, None)
        if owner is not None and owner in self._all:
            owner.keep(name, digest)

    def holds(self, digest: Digest, *, in_tensorflow: bool) -> bool:
        return any(each.work is None and digest in each.models for each in self._all)

    def stop(self) -> None:
        for each in self._all:
            each.stop()
        self._all.clear()
        self._owners.clear()
        self._clock.clear()


class _Resident:
    """The caller's side of one process that stays."""

    def __init__(self, output: Path) -> None:
        self.work: Work | None = None
        self.models: list[Digest] = []
        self.is_over = False
        # The most memory that it had, in bytes, once it has ended.
        self.peak = 0
        self._steps = 0
        self._given: str | None = None  # the work that gave the model it could keep
        life, self._life = os.pipe()
        with open(output, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, json.dumps(sys.path), str(life)],
                pass_fds=(life,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                # Ctrl-C is for the caller, which then ends it.
                start_new_session=True,
                bufsize=0,
            )
        os.close(life)

    def fileno(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def run(self, work: Work) -> None:
        self.work = work
        self._steps += 1
        self._given = None
        digest = work.model_digest
        model = digest.hex if digest is not None and digest in self.models else None
        self._send({"run": work.name, "scratch": str(work.order.scratch), "model": model})

    def keep(self, name: str, digest: Digest) -> None:
        """The model that some work gave has this digest, and stays in memory if it can."""
        from freezeflow.engine.resident import KEPT_MODELS

        if name != self._given:
            return
        self._send({"keep": name, "digest": digest.hex})
        self.models = [*(each for each in self.models if each != digest), digest][-KEPT_MODELS:]

    def end_of_work(self) -> int | None:
        """Whether its work has ended: 0, or how the process died; None while it runs."""
        readable, _, _ = select.select([self], [], [], 0)
        if not readable:
            return None
        self.work = None
        self.is_over = self._steps >= _STEPS
        reply = os.read(self.fileno(), _PIPE_BYTES)
        if reply:
            self._given = json.loads(reply)["gives"]
            return 0
        self.is_over = True
        return self._wait()

    def _wait(self) -> int:
        """Waits for its end; its exit code, negative for a signal."""
        if self._process.returncode is None:
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self.peak = usage.ru_maxrss * 1024
        return self._process.returncode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        os.close(self._life)

    def _send(self, command: object) -> None:
        assert self._process.stdin is not None
        # One that has died is found by `end_of_work`.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command).encode() + b"\n")


# The kernel ends those that have much. Its count is of the whole machine: a smaller process, killed while
# another one was ended for want of memory, was killed by somebody else.
_MUCH_BYTES = 100_000_000


def _killed_report(number: int, peak: int, kernel_has_killed: bool) -> Report:
    """The report of a step whose process was killed by a signal, when it had so much memory at most."""
    if number == signal.SIGKILL and kernel_has_killed and peak > _MUCH_BYTES:
        failure = StageFailed(
            f"ran out of memory: the kernel ended its process, which had {peak / 1e6:,.0f} MB",
            hint="run it where there is more, or fewer steps side by side (--jobs, --mem-limit)",
        )
        return Report(failure=failure, lost="memory", peak_rss_bytes=peak, own_peak_bytes=peak)
    return Report(failure=killed(number), lost="died", peak_rss_bytes=peak)


_SEE_LOG = "the end of its log follows"

# A disk with less than this is full: no report fits on it.
_LITTLE_BYTES = 64 * 1024


def _died(code: int, scratch: Path) -> StageFailed:
    """The failure of a step whose process ended without a report, which it could not write on a full disk."""
    message = f"its process ended with code {code}"
    disk = os.statvfs(scratch)
    if disk.f_bavail * disk.f_frsize < _LITTLE_BYTES:
        return StageFailed(
            f"{message}: the disk of {scratch.parent} is full", hint="Free some space on this disk."
        )
    return StageFailed(message, hint=_SEE_LOG)


def killed(number: int) -> StageFailed:
    """The failure of a step whose process was killed by a signal."""
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
