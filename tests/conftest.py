"""What all tests share."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from freezeflow.store.index import Index

# As the processes of steps have it; TensorFlow reads it once, when the first test imports it.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

# A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

_GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate", action="store_true", help="write the golden files instead of comparing"
    )


@pytest.fixture(autouse=True)
def closed_indexes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes what a test left open: from Python 3.13 on, SQLite warns where it does not."""
    connections: list[sqlite3.Connection] = []
    connect = Index._connect

    def remembered(index: Index) -> sqlite3.Connection:
        connection = connect(index)
        # One that was opened in another thread can be closed only there.
        if threading.current_thread() is threading.main_thread():
            connections.append(connection)
        return connection

    monkeypatch.setattr(Index, "_connect", remembered)
    yield
    for connection in connections:
        connection.close()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with ``tests/golden/NAME``; with --regenerate it writes the file."""

    def compare(name: str, text: str) -> None:
        file = _GOLDEN / name
        if request.config.getoption("--regenerate"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert text == file.read_text(encoding="utf-8"), f"{name}: see it with --regenerate"

    return compare
