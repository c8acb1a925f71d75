"""``verdict`` and ``replay``: what a validation found, told and seen again."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tensorflow as tf

from tests.cli.conftest import Cli
from tests.cli.test_with_tensorflow import COUNTER, Counter

pytestmark = pytest.mark.slow

PASSING = """\
version: 1
model: {saved_model: model}
stages: [load, freeze, {validate: {samples: 2}}]
"""


def test_a_verdict_that_passed_is_told_and_replayed(cli: Cli, folder: Path) -> None:
    (folder / "passing.yaml").write_text(PASSING)
    assert cli("verdict", "passing.yaml").returncode == 1
    assert cli("run", "passing.yaml").returncode == 0
    told = cli("verdict", "passing.yaml")
    assert told.returncode == 0, told.stderr
    assert "level exact" in told.stdout
    assert "2 calls (2 seeded)" in told.stdout
    assert "confinement:" in told.stdout
    data = json.loads(cli("verdict", "passing.yaml", "--json").stdout)
    assert data["format"] == "freezeflow.verdicts/1"
    assert data["ok"] is True
    assert cli("verdict", "passing.yaml", "--junit", "out.xml").returncode == 0
    root = ElementTree.parse(folder / "out.xml").getroot()
    assert {suite.get("failures") for suite in root} == {"0"}
    assert len(list(root.iter("testcase"))) >= 2
    again = cli("replay", "passing.yaml", "--json")
    assert again.returncode == 0, again.stderr
    (verdict,) = json.loads(again.stdout)
    assert verdict["signatures"]["serving_default"]["kinds"] == {"file": 2}


def test_a_failure_is_told_and_replayed(cli: Cli, folder: Path) -> None:
    counter = Counter()
    tf.saved_model.save(counter, str(folder / "counter"), signatures=counter.count)
    (folder / "counter.yaml").write_text(COUNTER)
    done = cli("run", "counter.yaml", "--json")
    assert done.returncode == 4
    (failed,) = [s for s in json.loads(done.stdout)["plans"][0]["steps"] if s["error"]]
    assert failed["facts"]["verdict"]["equal"] is False
    hint = failed["error"]["hint"]
    assert "It begins at" in hint
    evidence = Path(hint.rpartition("freezeflow replay ")[2])
    assert (evidence / "inputs.tfrecord").is_file()
    told = cli("verdict", "counter.yaml", "--junit", "out.xml")
    assert told.returncode == 4
    assert ElementTree.parse(folder / "out.xml").getroot().find(".//failure") is not None
    if (evidence / "subgraph" / "subgraph.json").is_file():
        again = cli("replay", str(evidence))
        assert again.returncode == 4, again.stderr
        assert "differs" in again.stdout
