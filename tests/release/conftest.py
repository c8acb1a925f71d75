"""What the tests of release builds share: the real command line, and a release that it made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from freezeflow.api import releases
from tests.cli.conftest import COMMAND, ROOT, cli, environment, folder, imported

__all__ = ["cli", "environment", "folder", "imported", "project", "released", "signed"]

RECIPE = """\
version: 1
name: digits
model:
  saved_model: model
stages:
  - load
  - freeze
  - validate: {samples: 2}
  - export: build/digits.pb
  - {id: more, export: {format: saved_model, to: build/saved}, needs: validate}
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe that validates, its lock, and a cache in which all of it has run."""
    folder = tmp_path_factory.mktemp("release") / "project"
    shutil.copytree(ROOT / "pipelines" / "digits" / "model", folder / "model")
    (folder / "digits.yaml").write_text(RECIPE)
    environment = {**os.environ, "FREEZEFLOW_CACHE_DIR": str(folder / "cache")}
    command = [COMMAND, "lock", "digits.yaml"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def released(project: Path) -> Path:
    """The folder of a release of that project, with ``release.tar`` and ``release.oci`` beside it."""
    to = project.parent / "release"
    done = releases.release(
        project / "digits.yaml",
        to,
        version="1.2",
        tar=True,
        oci=True,
        cache_dir=project / "cache",
    )
    assert done.release is not None
    return to


@pytest.fixture
def signed(released: Path, tmp_path: Path) -> Path:
    """A signed copy of the release; the key is ``key`` beside it."""
    from freezeflow.release.signing import new_key

    copy = tmp_path / "release"
    shutil.copytree(released, copy)
    new_key(tmp_path / "key")
    releases.sign(copy, key=tmp_path / "key")
    return copy
