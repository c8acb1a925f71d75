"""Batches in which much goes wrong, and models that share most of their weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Cli
from tests.engine.conftest import install_plugin

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

BAD = {"missing": 8, "broken": 8, "refused": 8, "hang": 3, "crash": 3}
GOOD = 270

RECIPE = """\
version: 1
models:
  include: zoo/*
  overrides:
    "refused*": {override: {change: {fail: refuse}}}
    "hang*": {override: {change: {seconds: 600}}}
    "crash*": {override: {change: {fail: kill}}}
stages:
  - load
  - freeze
  - {test-change: {}, id: change}
  - export: "build/{model}.pb"
"""

# What JUnit's readers accept: https://github.com/testmoapp/junitxml
_ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "errors", "skipped"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testcase": {"name", "classname", "time"},
    "failure": {"message", "type"},
    "skipped": {"message"},
}
_CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"testcase"},
    "testcase": {"failure", "skipped"},
    "failure": set(),
    "skipped": set(),
}


@pytest.fixture
def zoo(folder: Path) -> Path:
    """270 good models, and 30 bad ones of five kinds."""
    names = [f"good{number}" for number in range(GOOD)]
    names += [f"{kind}{number}" for kind, count in BAD.items() for number in range(count)]
    for name in names:
        model = folder / "zoo" / name
        shutil.copytree(folder / "model", model)
        with (model / "saved_model.pb").open("ab") as file:
            file.write(b"\xfa\x7f" + bytes([len(name)]) + name.encode())
        if name.startswith("broken"):
            (model / "saved_model.pb").write_bytes(b"\x0a\x05nope")
        if name.startswith("missing"):
            (model / "variables" / "variables.data-00000-of-00001").unlink()
    (folder / "zoo.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


def test_three_hundred_models_of_which_thirty_are_bad(cli: Cli, zoo: Path) -> None:
    plugin = {"PYTHONPATH": f"{install_plugin(zoo / 'plugin')}:{ROOT}"}
    words = ("run", "zoo.yaml", "--keep-going", "--jobs", "2", "--step-timeout", "4s")
    done = cli(*words, "--events", "e.ndjson", "--junit", "j.xml", **plugin)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr

    # A line for each model; each bad one says why.
    lines = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert len(lines) == GOOD + sum(BAD.values())
    failed = [line for line in lines if "FAILED" in line]
    assert sum("  done  " in line for line in lines) == GOOD
    names = [line.partition("] ")[2].split()[0] for line in failed]
    assert Counter(name.rstrip("0123456789") for name in names) == BAD
    for kind, said in (
        ("refused", "change: this will not do"),
        ("hang", "change: was ended after 4 seconds"),
        ("crash", "change: its process was killed by SIGKILL"),
        ("broken", "load: "),
        ("missing", "load: "),
    ):
        assert all(said in line for line in failed if f" {kind}" in line), kind
    assert len(list((zoo / "build").glob("*.pb"))) == GOOD
    assert {path.stem[:4] for path in (zoo / "build").glob("*.pb")} == {"good"}
    assert len({path.read_bytes() for path in (zoo / "build").glob("*.pb")}) == 1

    events = [json.loads(line) for line in (zoo / "e.ndjson").read_text().splitlines()]
    check_events(events)
    check_junit(ElementTree.parse(zoo / "j.xml").getroot())

    # Exactly those again, and once they are mended all is right.
    again = json.loads(cli("plan", "zoo.yaml", "--failed", "--json", **plugin).stdout)
    assert Counter(plan["name"].rstrip("0123456789") for plan in again["plans"]) == BAD
    for kind in ("broken", "missing"):
        for number in range(BAD[kind]):
            shutil.rmtree(zoo / "zoo" / f"{kind}{number}")
            shutil.copytree(zoo / "model", zoo / "zoo" / f"{kind}{number}")
    text = (zoo / "zoo.yaml").read_text().replace("fail: refuse", "say: x").replace("600", "0")
    (zoo / "zoo.yaml").write_text(text.replace("fail: kill", "say: x"))
    done = cli("run", "zoo.yaml", "--failed", "--jobs", "2", "--json", **plugin)
    assert done.returncode == 0
    plans = json.loads(done.stdout)["plans"]
    assert Counter(plan["name"].rstrip("0123456789") for plan in plans) == BAD
    done = cli("run", "zoo.yaml", "--failed", **plugin)
    assert done.stdout == "Nothing to do: no model is selected.\n"
    assert done.stderr == "0 of 300 models are selected\n"


def check_events(events: list[dict[str, Any]]) -> None:
    """Whole: every step that began has ended, and every step has an end."""
    assert (events[0]["event"], events[-1]["event"]) == ("run_started", "run_ended")
    ended = [event for event in events if event["event"] == "step_ended"]
    assert len({(event["plan"], event["step"]) for event in ended}) == len(ended)
    assert len(ended) == events[0]["steps"] == 4 * (GOOD + sum(BAD.values()))
    began = {(e["plan"], e["step"]) for e in events if e["event"] == "step_started"}
    over = {(e["plan"], e["step"]) for e in ended if e["status"] in ("ran", "failed")}
    assert began == over
    assert all(earlier["time"] <= later["time"] for earlier, later in pairwise(events))
    failed = [event for event in ended if event["status"] == "failed"]
    assert len(failed) == sum(BAD.values())
    assert all(event["error"]["message"] for event in failed)


def check_junit(element: ElementTree.Element) -> None:
    """Elements and attributes as readers know them, and counts that are right."""
    assert set(element.attrib) <= _ATTRIBUTES[element.tag]
    assert {child.tag for child in element} <= _CHILDREN[element.tag]
    if "time" in element.attrib:
        assert float(element.attrib["time"]) >= 0
    if element.tag == "testsuite":
        cases = element.findall("testcase")
        assert element.attrib["tests"] == str(len(cases))
        for word, tag in (("failures", "failure"), ("skipped", "skipped")):
            assert element.attrib[word] == str(len(element.findall(f"testcase/{tag}")))
    for child in element:
        check_junit(child)


# ---------------------------------------------------------------- shared weights

_SAVE = """
import sys
import tensorflow as tf

class Model(tf.Module):
    def __init__(self, number):
        self.backbone = [tf.Variable(tf.random.stateless_normal([256, 256], (n, 1))) for n in range(8)]
        self.head = tf.Variable(tf.random.stateless_normal([256, 100], (number, 2)))

    @tf.function(input_signature=[tf.TensorSpec([None, 256], tf.float32)])
    def __call__(self, x):
        for weights in self.backbone:
            x = tf.nn.relu(tf.matmul(x, weights))
        return {"y": tf.matmul(x, self.head)}

for number in range(10):
    model = Model(number)
    tf.saved_model.save(model, f"{sys.argv[1]}/m{number}", signatures=model.__call__)
"""
BACKBONE_BYTES = 8 * 256 * 256 * 4
HEAD_BYTES = 256 * 100 * 4


def test_ten_copies_of_a_backbone_share_its_weights(cli: Cli, folder: Path) -> None:
    """In the cache, in a shared cache, and in that of a machine that has none of the models."""
    command = [sys.executable, "-c", _SAVE, str(folder / "tuned")]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "tuned.yaml").write_text(
        "version: 1\nmodels: tuned/*\nstages: [load, freeze, strip, export: 'build/{model}.pb']\n"
    )
    weights = BACKBONE_BYTES + 10 * HEAD_BYTES
    assert cli("run", "tuned.yaml").returncode == 0
    info = json.loads(cli("cache", "info", "--json").stdout)
    # The weights stay in the models' own files; the cache has the graphs without them.
    assert weights <= info["adopted_bytes"] < weights + 10_000
    assert info["blob_bytes"] < 500_000

    shared = folder / "shared"
    assert cli("cache", "push", "--remote", str(shared)).returncode == 0
    pushed = sum(path.stat().st_size for path in (shared / "v1/blobs").rglob("*") if path.is_file())
    assert weights < pushed < weights + info["blob_bytes"] + 10_000

    other = {"FREEZEFLOW_CACHE_DIR": str(folder / "other")}
    assert cli("cache", "pull", "--remote", str(shared), **other).returncode == 0
    pulled = json.loads(cli("cache", "info", "--json", **other).stdout)
    assert pulled["blob_bytes"] <= pushed
    assert cli("cache", "verify", **other).returncode == 0
