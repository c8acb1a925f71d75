"""What becomes of a command whose output nobody reads any more: a quiet end, and no report of a bug."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND

# Says that it has begun, and waits for Ctrl-C.
_WAITING = """
import sys, time
import click
from freezeflow.cli.wrap import guarded

begun = sys.argv.pop()

@click.command
def waiting():
    open(begun, "w").close()
    time.sleep(60)

sys.exit(guarded(waiting))
"""


@pytest.fixture
def quiet(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment in which the report of a bug would lie in ``reports``."""
    (tmp_path / "reports").mkdir()
    return {**environment, "TMPDIR": str(tmp_path / "reports"), "PYTHONUNBUFFERED": ""}


def start(
    command: list[str], folder: Path, environment: dict[str, str], **pipes: int
) -> subprocess.Popen[bytes]:
    """A command whose output goes into pipes of which the readers have gone."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        **{"stdout": writer, "stderr": writer, **pipes},
    )
    os.close(writer)
    os.close(reader)
    return process


def test_ctrl_c_without_readers_is_an_interruption(tmp_path: Path, quiet: dict[str, str]) -> None:
    begun = tmp_path / "begun"
    with start([sys.executable, "-c", _WAITING, str(begun)], tmp_path, quiet) as process:
        while not begun.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert not list((tmp_path / "reports").iterdir())


@pytest.mark.parametrize("words", [["run", "small.yaml"], ["stages"], ["run", "missing.yaml"]])
def test_a_command_without_readers_ends_quietly(
    folder: Path, quiet: dict[str, str], words: list[str]
) -> None:
    with start([COMMAND, *words], folder, quiet) as process:
        assert process.wait(60) == 141
    assert not list((folder / "reports").iterdir())
    assert not list(folder.glob("cache/scratch/*"))


@pytest.mark.parametrize("words", [["stages"], ["schema"]])
def test_the_other_stream_is_not_written_to(
    folder: Path, quiet: dict[str, str], words: list[str]
) -> None:
    with start([COMMAND, *words], folder, quiet, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(60) == 141
    assert told == b""
