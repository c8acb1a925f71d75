"""Whole processes measured from outside: wall clock, CPU time, peak memory."""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Run(NamedTuple):
    """One run of a command.

    Args:
        wall: Seconds from start to end.
        cpu: Seconds of user and system time, all its processes together.
        peak: Peak resident memory in bytes, of its largest process.
    """

    wall: float
    cpu: float
    peak: int


@dataclasses.dataclass(kw_only=True)
class Contender:
    """A command that does a job, and how its runs went.

    Args:
        name: What the table calls it.
        command: The command; ``{out}`` in it stands for a path that is free before each run.
        rounds: At most so many runs.
        environment: Variables on top of the present ones.
    """

    name: str
    command: Sequence[str]
    rounds: int
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    runs: list[Run] = dataclasses.field(default_factory=list)
    failure: str = ""
    output_bytes: int = 0

    def run(self, folder: Path) -> None:
        """Runs the command once, in a folder for its output that is removed afterwards."""
        out = Path(tempfile.mkdtemp(dir=folder)) / "out.pb"
        command = [part.replace("{out}", str(out)) for part in self.command]
        found, failure = measure(command, {**os.environ, **self.environment})
        if failure:
            self.failure = failure
        else:
            self.runs.append(found)
            self.output_bytes = out.stat().st_size if out.is_file() else 0
        shutil.rmtree(out.parent)

    def median(self) -> Run:
        """The median of each figure over the runs."""
        wall, cpu, peak = zip(*self.runs, strict=True)
        return Run(statistics.median(wall), statistics.median(cpu), int(statistics.median(peak)))


def measure(command: Sequence[str], environment: dict[str, str]) -> tuple[Run, str]:
    """Runs a command; its figures, and the last line of what it said if it failed.

    The peak is never less than the memory of the process that starts it: so import little there.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        found = Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        if process.returncode == 0:
            return found, ""
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines() or ["no message"]
        return found, f"exit {process.returncode}: {lines[-1][:120]}"


def interleave(contenders: Sequence[Contender], folder: Path, tell: Callable[[str], None]) -> None:
    """Runs all contenders in turn, round by round, so that what disturbs one disturbs all."""
    for number in range(max(contender.rounds for contender in contenders)):
        for contender in contenders:
            if number < contender.rounds and not contender.failure:
                tell(f"{contender.name}: run {number + 1} of {contender.rounds}")
                contender.run(folder)
