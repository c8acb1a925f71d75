"""Runs Python modules as `python -m` does, each in a fork of a process that has imported what takes long.

``python -m tools.forks MODULE...`` imports the modules and then reads lines of JSON: ``run`` (a module),
``arguments``, ``folder`` (to run in), ``limit`` (seconds). It answers each with a line of JSON: ``code``
(negative for a signal; null after the limit), ``out``, ``err``, ``seconds``. `Forks` is the other side.
Importing must not start threads: a fork does not get them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """What came of a module.

    Args:
        code: Its exit code, negative for a signal; None after the limit.
        out: Standard output.
        err: Standard error.
        seconds: Wall clock.
    """

    code: int | None
    out: str
    err: str
    seconds: float


class Forks:
    """A process with modules imported, whose forks run others.

    Args:
        python: The interpreter.
        modules: What it imports.
    """

    def __init__(self, python: str, modules: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [python, str(Path(__file__).resolve()), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )

    def run(self, module: str, arguments: Sequence[str], folder: Path, limit: float) -> Ended:
        """Runs a module in a folder, for as many seconds at most.

        Raises:
            OSError: The process is not there: it could not import its modules.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"run": module, "arguments": [*arguments], "folder": str(folder), "limit": limit}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise OSError("a process that should fork has ended")
        return Ended(**json.loads(answer))

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=10)


def _serve(modules: Sequence[str]) -> None:
    # What modules print on import is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))._asdict()), file=answers, flush=True)


def _run(order: Mapping[str, Any]) -> Ended:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        child = os.fork()
        if not child:
            os.setsid()
            _become(order, out.fileno(), err.fileno())
        code = _waited(child, started + order["limit"])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        seconds = time.perf_counter() - started
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Ended(code, *texts, seconds)


def _waited(child: int, until: float) -> int | None:
    while time.perf_counter() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _become(order: Mapping[str, Any], out: int, err: int) -> None:
    """Goes on as the module, and never comes back."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(order["folder"])
        sys.argv = [order["run"], *order["arguments"]]
        code = _exit_code(order["run"])
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exit_code(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001  a fork never goes on as its parent
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1:])
