"""The real command line, in a folder with a copy of the demo's model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = str(Path(sys.executable).with_name("freezeflow"))

# Without TensorFlow: load, freeze, strip, export.
RECIPE = """\
version: 1
name: small
vars: {to: build/small.pb}
model:
  saved_model: model
stages:
  - load
  - freeze
  - strip
  - export: "${to}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with ``model`` (the demo's) and ``small.yaml``."""
    shutil.copytree(ROOT / "pipelines" / "digits" / "model", tmp_path / "model")
    (tmp_path / "small.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    cache = folder / "cache"
    return {
        **kept,
        "FREEZEFLOW_CACHE_DIR": str(cache),
        "XDG_CONFIG_HOME": str(folder / "no-settings-of-the-user"),
        "TERM": "xterm",
        "COLUMNS": "80",
    }


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(folder: Path, environment: dict[str, str]) -> Cli:
    """Runs the installed command in that folder."""

    def call(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *words],
            cwd=folder,
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return call


@pytest.fixture
def imported(folder: Path, environment: dict[str, str]) -> Callable[..., set[str]]:
    """Runs a command line in a fresh interpreter; the modules that were imported, by full name."""
    script = (
        "import json, sys\n"
        "from freezeflow.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )

    def call(*words: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return set(json.loads(done.stderr.splitlines()[-1]))

    return call
