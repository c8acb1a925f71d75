"""A run in a process of its own that is told to stop: nothing is left, and a rerun succeeds."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freezeflow.engine.run import run
from freezeflow.store.store import Store
from tests.engine.builders import chain
from tests.engine.test_executors import wait_until
from tests.engine.test_run import assert_clean

_SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from freezeflow.engine.options import RunOptions
from freezeflow.engine.run import run
from freezeflow.store.store import Store
from tests.engine.builders import chain

# No guard: a step's process must not run this script again.
Path(sys.argv[1], "script.count").open("a").write("ran\\n")
plan = chain(Path(sys.argv[1]), seconds=600)
try:
    run(plan, Store.open(sys.argv[2]), RunOptions(jobs=2))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def running(folder: Path, store: Store, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has come to its slow step."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    paths = [str(Path(__file__).parents[2]), str(tmp_path / "plugin")]
    process = subprocess.Popen([sys.executable, str(script), folder, store.folder, *paths])
    wait_until((folder / "change.count").exists)
    yield process
    process.kill()
    process.wait()


def processes_of(store: Store) -> list[int]:
    """Living processes that have a file of the store's scratch folder open, or work in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            opened = [os.readlink(entry) for entry in (path / "fd").iterdir()]
        except OSError:
            continue
        if any(str(store.folder / "scratch") in name for name in opened):
            found.append(int(path.name))
    return [process for process in found if process != os.getpid()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop(
    running: subprocess.Popen[bytes], folder: Path, store: Store, number: signal.Signals
) -> None:
    assert processes_of(store)
    started = time.monotonic()
    running.send_signal(number)
    assert running.wait(timeout=20) == 130
    assert time.monotonic() - started < 5
    wait_until(lambda: processes_of(store) == [])
    assert_clean(store)
    assert (folder / "script.count").read_text() == "ran\n"
    assert run(chain(folder), store).ok


def test_killed(running: subprocess.Popen[bytes], folder: Path, store: Store) -> None:
    running.kill()
    running.wait()
    wait_until(lambda: processes_of(store) == [])
    # What it could not clean up, the next run does.
    assert run(chain(folder), store).ok
    assert_clean(store)
