"""Whole processes measured from outside: wall clock, CPU time, peak memory."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

# So long a contender may run, all its rounds together, before it begins another one.
PATIENCE_SECONDS = 60

# Seconds between two looks at a process.
_BETWEEN_LOOKS = 0.02


class Run(NamedTuple):
    """One run of a command.

    Args:
        wall: Seconds from start to end.
        cpu: Seconds of user and system time, all its processes together.
        peak: Peak resident memory in bytes, of its largest process.
        first_peak: That of the process that was started, which others may outgrow.
    """

    wall: float
    cpu: float
    peak: int
    first_peak: int


@dataclasses.dataclass(kw_only=True)
class Contender:
    """A command that does a job, and how its runs went.

    Args:
        name: What the table calls it.
        command: The command; ``{out}`` in it stands for a path that is free before each run.
        rounds: At most so many runs.
        environment: Variables on top of the present ones.
        cwd: The folder that it runs in.
        before: Done before each run, unmeasured.
    """

    name: str
    command: Sequence[str]
    rounds: int
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    cwd: Path | None = None
    before: Callable[[], None] = lambda: None
    runs: list[Run] = dataclasses.field(default_factory=list)
    failure: str = ""
    output_bytes: int = 0

    def run(self, folder: Path) -> None:
        """Runs the command once, in a folder for its output that is removed afterwards."""
        out = Path(tempfile.mkdtemp(dir=folder)) / "out.pb"
        command = [part.replace("{out}", str(out)) for part in self.command]
        self.before()
        found, failure = measure(command, {**os.environ, **self.environment}, self.cwd)
        if failure:
            self.failure = failure
        else:
            self.runs.append(found)
            files = [out] if out.is_file() else [p for p in out.rglob("*") if p.is_file()]
            self.output_bytes = sum(path.stat().st_size for path in files)
        shutil.rmtree(out.parent)

    def median(self) -> Run:
        """The median of each figure over the runs."""
        wall, cpu, *peaks = map(statistics.median, zip(*self.runs, strict=True))
        return Run(wall, cpu, *map(int, peaks))


def measure(
    command: Sequence[str], environment: dict[str, str], cwd: Path | None = None
) -> tuple[Run, str]:
    """Runs a command; its figures, and the last line of what it said if it failed.

    The peak is never less than the memory of the process that starts it: so import little there.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        watch = _Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        found = Run(wall, cpu, usage.ru_maxrss * 1024, watch.peak())
        if process.returncode == 0:
            return found, ""
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines() or ["no message"]
        return found, f"exit {process.returncode}: {lines[-1][:120]}"


class _Watch:
    """Looks at the peak memory of one process until it ends: the kernel tells it only with its children's."""

    def __init__(self, process: int) -> None:
        self._status = Path(f"/proc/{process}/status")
        self._peak = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def peak(self) -> int:
        """In bytes; waits until the process is gone."""
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        # A process that has ended has no such line, or no such file.
        with contextlib.suppress(OSError, StopIteration):
            while True:
                lines = self._status.read_text().splitlines()
                line = next(line for line in lines if line.startswith("VmHWM:"))
                self._peak = int(line.split()[1]) * 1024
                time.sleep(_BETWEEN_LOOKS)


def forget_cached(folder: Path) -> None:
    """Takes the files of a folder out of the page cache: what reads them next reads the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def interleave(contenders: Sequence[Contender], folder: Path, tell: Callable[[str], None]) -> None:
    """Runs all contenders in turn, round by round, so that what disturbs one disturbs all.

    One that has taken its time is not run again.
    """
    for number in range(max(contender.rounds for contender in contenders)):
        for contender in contenders:
            taken = sum(run.wall for run in contender.runs)
            if number < contender.rounds and not contender.failure and taken < PATIENCE_SECONDS:
                tell(f"{contender.name}: run {number + 1} of {contender.rounds}")
                contender.run(folder)
