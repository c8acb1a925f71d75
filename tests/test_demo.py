"""The demo as a newcomer meets it: ``make demo``, twice, and the model's own training script."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "pipelines/digits/run_frozen.py"


@pytest.fixture
def checkout(tmp_path):
    """A copy of the project whose environment is this one."""
    folder = tmp_path / "checkout"
    skip = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "tests", "bench")
    shutil.copytree(ROOT, folder, ignore=skip)
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, command in [("python", ""), ("freezeflow", " -m freezeflow")]:
        wrapper = commands / name
        wrapper.write_text(f'#!/bin/sh\nexec {sys.executable}{command} "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)
    (folder / ".venv" / ".demo-ready").touch()
    return folder


@pytest.fixture
def make(checkout, tmp_path):
    # The tests themselves may have been started by make, which would then tell of its folders.
    ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ours},
        "PYTHONPATH": str(checkout),
        "FREEZEFLOW_CACHE_DIR": str(tmp_path / "cache"),
    }

    def run(*words):
        return subprocess.run(
            words, cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_make_demo_twice(checkout, make):
    first = make("make", "demo")
    assert first.returncode == 0, first.stderr
    assert "equal to the byte" in first.stdout
    assert "accuracy" in first.stdout
    assert (checkout / "pipelines/build/digits.manifest.json").is_file()
    graph = (checkout / "pipelines/build/digits.pb").read_bytes()
    labels = str(np.load(checkout / "pipelines/digits/held_out.npz")["labels"][:20])
    assert first.stdout.rstrip().endswith(labels)

    second = make("make", "demo")
    assert second.returncode == 0, second.stderr
    assert "Nothing to do" in second.stdout
    assert labels not in second.stdout, "the script ran again"
    assert (checkout / "pipelines/build/digits.pb").read_bytes() == graph


def test_the_script_has_eight_lines(checkout):
    lines = (checkout / SCRIPT).read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line]) == 8


def test_the_model_can_be_trained_again(checkout, make):
    shutil.rmtree(checkout / "pipelines/digits/model")
    trained = make(sys.executable, "pipelines/digits/train.py")
    assert trained.returncode == 0, trained.stderr
    right, _, _ = trained.stdout.partition(" of 64 held-out digits are right")
    assert int(right) >= 60

    done = make(str(checkout / ".venv/bin/freezeflow"), "run", "--json", "pipelines/digits.yaml")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"]
