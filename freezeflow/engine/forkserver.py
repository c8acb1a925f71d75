"""Fresh processes forked from a small server that has imported what they need and run nothing.

The server is a process of its own in a session of its own. Nothing of the caller is inherited or
run again (not its ``__main__`` module either), so a script without a guard can use the engine. It
talks over two pipes, a line for each message:

    to the server      RUN <name> <scratch folder, as JSON>      KILL <name>
    from the server    READY      EXIT <name> <return code, negative for a signal>

When the pipe to it closes, because its owner is done or dead, the server ends with all its
children.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from freezeflow.engine.orders import LOG_NAME

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from freezeflow.engine.forkserver import serve; serve(sys.argv[2:])"
)

_PIPE_BYTES = 65536


class ServerDied(Exception):
    """The server has ended; the end of what it wrote says why."""


class ForkServer:
    """The caller's side of a server.

    Args:
        preload: Modules that it imports before it forks.
        environment: Environment variables for it and its children, over this process's own.
        output: File that takes what it prints.
    """

    def __init__(
        self, preload: Sequence[str], environment: Mapping[str, str], output: Path
    ) -> None:
        self._output = output
        self._pending = b""
        with open(output, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, json.dumps(sys.path), *preload],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, **environment},
                # Ctrl-C is for the caller, which then ends the server.
                start_new_session=True,
                bufsize=0,
            )

    def fileno(self) -> int:
        """Becomes readable when `exits` has something to give."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def run(self, name: str, scratch: Path) -> None:
        """Starts a process that performs the order in a folder and prints into the order's log."""
        self._send(f"RUN {name} {json.dumps(str(scratch))}\n")

    def kill(self, name: str) -> None:
        """Ends a process; it is then reported as killed."""
        self._send(f"KILL {name}\n")

    def exits(self) -> list[tuple[str, int, int]]:
        """Of processes that have ended name, return code and peak memory in bytes; waits if none has.

        Raises:
            ServerDied: There is no server any more.
        """
        data = os.read(self.fileno(), _PIPE_BYTES)
        if not data:
            raise ServerDied(self._last_line())
        *lines, self._pending = (self._pending + data).split(b"\n")
        found = []
        for line in lines:
            word, *rest = line.decode().split(" ")
            if word == "EXIT":
                found.append((rest[0], int(rest[1]), int(rest[2])))
        return found

    def stop(self) -> None:
        """Ends the server and all its children at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
        except BrokenPipeError:
            raise ServerDied(self._last_line()) from None

    def _last_line(self) -> str:
        lines = self._output.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def serve(preload: Sequence[str]) -> None:
    """The server's side: imports, then forks a process for every request until its input closes."""
    replies = os.dup(1)
    os.dup2(2, 1)
    for module in preload:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001  the caller is told by the last line of the output
            traceback.print_exc()
            os._exit(1)
    _Server(replies).loop()


class _Server:
    def __init__(self, replies: int) -> None:
        self._replies = replies
        self._names: dict[int, str] = {}
        self._pending = b""
        self._wakeup, wakeup_in = os.pipe()
        os.set_blocking(wakeup_in, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)
        self._inherited = (replies, self._wakeup, wakeup_in)

    def loop(self) -> None:
        self._reply("READY")
        while True:
            readable, _, _ = select.select([0, self._wakeup], [], [])
            if self._wakeup in readable:
                os.read(self._wakeup, _PIPE_BYTES)
            self._report_exits()
            if 0 in readable:
                data = os.read(0, _PIPE_BYTES)
                if not data:
                    # The whole session: this process, its children, and theirs.
                    os.killpg(0, signal.SIGKILL)
                self._obey(data)

    def _obey(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            word, name, *rest = line.decode().split(" ", 2)
            if word == "RUN":
                self._fork(name, Path(json.loads(rest[0])))
            else:
                for process in [p for p, known in self._names.items() if known == name]:
                    os.kill(process, signal.SIGKILL)

    def _fork(self, name: str, scratch: Path) -> None:
        process = os.fork()
        if process == 0:
            self._become_step(scratch)
        self._names[process] = name

    def _become_step(self, scratch: Path) -> None:
        """In the child: does the step's work and ends the process."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in self._inherited:
                os.close(descriptor)
            redirect(scratch)
            from freezeflow.engine.worker import perform_saved_order

            perform_saved_order(scratch)
            sys.stdout.flush()
            code = 0
        except BaseException:  # noqa: BLE001  nothing may return into the server's loop
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            # No exit handlers: TensorFlow's threads do not survive them in a forked process.
            os._exit(code)

    def _report_exits(self) -> None:
        while self._names:
            process, status, usage = os.wait4(-1, os.WNOHANG)
            if process == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            self._reply(f"EXIT {self._names.pop(process)} {code} {usage.ru_maxrss * 1024}")

    def _reply(self, line: str) -> None:
        os.write(self._replies, f"{line}\n".encode())


def redirect(scratch: Path) -> None:
    """Input from nowhere, output into the log of the step with this folder."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(scratch / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.close(nothing)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
