"""The same input gives the same bytes: whatever the folder, locale, hash seed, cores and umask."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINES = Path(__file__).resolve().parent.parent / "pipelines"

VARIATIONS = {
    "plain": {},
    "another locale and zone": {"LC_ALL": "C", "LANG": "C", "TZ": "Asia/Kathmandu"},
    "another hash seed and home": {"PYTHONHASHSEED": "4242", "HOME": "/nonexistent"},
}

RECIPE = """
version: 1
name: digits
model: {saved_model: digits/model}
stages:
  - load
  - freeze
  - {id: plain, strip: }
  - fold
  - export: build/digits.pb
  - {id: text, export: build/digits.pbtxt, needs: fold}
  - {id: unfolded, export: build/unfolded.pb, needs: plain}
  - {id: saved, export: {format: saved_model, to: build/saved}, needs: fold}
"""


def run(folder: Path, environment: dict[str, str], *options: str, cores: set[int]) -> None:
    command = [sys.executable, "-m", "freezeflow", "run", "recipe.yaml", *options]
    env = {**os.environ, "FREEZEFLOW_CACHE_DIR": str(folder / "cache"), **environment}
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    assert done.returncode == 0, done.stderr


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_every_artifact_is_the_same_everywhere(tmp_path):
    every_core = os.sched_getaffinity(0)
    found = {}
    for number, (name, environment) in enumerate(VARIATIONS.items()):
        folder = tmp_path / ("a" * (number + 1)) / "project"
        folder.mkdir(parents=True)
        shutil.copytree(PIPELINES / "digits" / "model", folder / "digits" / "model")
        (folder / "recipe.yaml").write_text(RECIPE)
        cores = {min(every_core)} if number % 2 else every_core
        before = os.umask(0o077 if number else 0o022)
        try:
            run(folder, environment, "--jobs", str(number + 1), cores=cores)
        finally:
            os.umask(before)
        found[name] = digests(folder / "build")
    first, *others = found.values()
    assert {"digits.pb", "digits.manifest.json", "digits.pbtxt", "unfolded.pb"} <= set(first)
    for other in others:
        assert other == first


@pytest.mark.slow
def test_a_warm_cache_gives_the_bytes_of_a_cold_one(tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(PIPELINES / "digits" / "model", folder / "digits" / "model")
    (folder / "recipe.yaml").write_text(RECIPE)
    cores = os.sched_getaffinity(0)
    run(folder, {}, cores=cores)
    cold = digests(folder / "build")
    shutil.rmtree(folder / "build")
    run(folder, {}, cores=cores)
    assert digests(folder / "build") == cold
    run(folder, {}, "--force", cores=cores)
    assert digests(folder / "build") == cold
