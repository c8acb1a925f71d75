"""Runs of the command line that need TensorFlow's process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from tests.cli.conftest import ROOT, Cli

pytestmark = pytest.mark.slow


@pytest.fixture
def demo(folder: Path) -> Path:
    """The demo's recipe and digits beside a copy of its model."""
    (folder / "digits").mkdir()
    (folder / "model").rename(folder / "digits/model")
    shutil.copy(ROOT / "pipelines/digits/held_out.npz", folder / "digits")
    shutil.copy(ROOT / "pipelines/digits.yaml", folder)
    return folder


def test_the_demo_tells_its_verdict(cli: Cli, demo: Path) -> None:
    done = cli("run", "digits.yaml")
    assert done.returncode == 0, done.stderr
    assert "equal to the byte in 1 call; accuracy 98.4%, the same as the original's" in done.stdout
    again = json.loads(cli("run", "digits.yaml", "--json").stdout)
    assert again["nothing_to_do"] is True
    (validate,) = [s for s in again["plans"][0]["steps"] if s["stage"] == "validate"]
    accuracy = validate["facts"]["verdict"]["signatures"]["serving_default"]["accuracy"]
    assert accuracy["original"] == accuracy["result"] == 63 / 64


class Counter(tf.Module):  # type: ignore[misc]
    """Answers how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])  # type: ignore[untyped-decorator]
    def count(self, x: tf.Tensor) -> tf.Tensor:
        return x + self.calls.assign_add(1.0)


COUNTER = """\
version: 1
model: {saved_model: counter}
stages:
  - load
  - freeze: {written: drop}
  - validate
  - export: build/counter.pb
"""


def test_a_result_that_differs_is_not_published(cli: Cli, folder: Path) -> None:
    counter = Counter()
    tf.saved_model.save(counter, str(folder / "counter"), signatures=counter.count)
    (folder / "counter.yaml").write_text(COUNTER)
    done = cli("run", "counter.yaml")
    assert done.returncode == 4
    assert "not equal to the byte" in done.stderr
    assert "counter: freeze: warning: dropped a write" in done.stderr
    assert "Failed: 2 ran, 1 failed, 1 skipped" in done.stdout
    assert not (folder / "build").exists()
