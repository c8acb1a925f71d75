"""What a run shows on a terminal, and that Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, RECIPE

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], side: int) -> None:
        self.process = process
        self._side = side
        self.raw = ""

    def read_until(self, text: str = "", seconds: float = 60) -> str:
        """All that was shown until `text` appears, or until the end."""
        deadline = time.monotonic() + seconds
        while not (text and text in self.raw):
            ready, _, _ = select.select([self._side], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} did not appear in {self.raw!r}"
            try:
                data = os.read(self._side, 4096)
            except OSError:  # Linux says so when the other side is closed.
                break
            if not data:
                break
            self.raw += data.decode()
        return self.raw

    def press_ctrl_c(self) -> None:
        os.write(self._side, b"\x03")


@contextlib.contextmanager
def on_terminal(words: list[str], folder: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        # The terminal becomes the process's own, so that Ctrl-C reaches it.
        ["setsid", "--ctty", COMMAND, *words],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_progress_is_live(folder: Path, environment: dict[str, str]) -> None:
    with on_terminal(["run", "small.yaml"], folder, environment) as terminal:
        raw = terminal.read_until()
        assert terminal.process.wait(30) == 0
    assert "\x1b[?25l" in raw, "the cursor was not hidden while it moved"
    assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l"), "and not shown again"
    assert "\x1b[32mdone" in raw
    plain = _ESCAPE.sub("", raw)
    for stage in ("load", "freeze", "strip", "export"):
        assert re.search(rf"small: {stage} +done +\d+\.\d\d s", plain)
    assert "Done: 4 ran" in plain


def test_without_colour(folder: Path, environment: dict[str, str]) -> None:
    with on_terminal(["run", "small.yaml"], folder, {**environment, "NO_COLOR": "1"}) as terminal:
        raw = terminal.read_until()
        assert terminal.process.wait(30) == 0
    assert not re.search(r"\x1b\[[0-9;]*m", raw)


def test_a_dumb_terminal_gets_lines(folder: Path, environment: dict[str, str]) -> None:
    with on_terminal(["run", "small.yaml"], folder, {**environment, "TERM": "dumb"}) as terminal:
        raw = terminal.read_until()
        assert terminal.process.wait(30) == 0
    assert "\x1b" not in raw


def test_nothing_to_do_moves_nothing(folder: Path, environment: dict[str, str]) -> None:
    for expected in ("Done", "Nothing to do"):
        with on_terminal(["run", "small.yaml"], folder, environment) as terminal:
            raw = terminal.read_until()
            assert terminal.process.wait(30) == 0
        assert expected in raw
    assert "\x1b[?25l" not in raw


def _processes(cache: str) -> set[int]:
    """The running processes that use a cache."""
    wanted = f"FREEZEFLOW_CACHE_DIR={cache}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        # It is gone by now, or about to be.
        with contextlib.suppress(OSError):
            if wanted in entry.read_bytes().split(b"\0"):
                found.add(int(entry.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_an_interruption_leaves_nothing(
    folder: Path, environment: dict[str, str], how: str
) -> None:
    (folder / "small.yaml").write_text(RECIPE.replace("- strip\n", "- strip\n  - fold\n"))
    with on_terminal(["run", "small.yaml"], folder, environment) as terminal:
        terminal.read_until("small: fold")
        cache = environment["FREEZEFLOW_CACHE_DIR"]
        assert len(_processes(cache)) > 1, "TensorFlow's process is not there yet"
        if how == "ctrl-c":
            terminal.press_ctrl_c()
        else:
            terminal.process.send_signal(signal.SIGTERM)
        raw = terminal.read_until()
        assert terminal.process.wait(30) == 130
        assert not _processes(cache)
    assert "interrupted" in raw
    assert "Traceback" not in raw
    assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l")
    assert not (folder / "build").exists()
    assert not list((folder / "cache/scratch").iterdir())
