"""Frozen graphs and SavedModels that TensorFlow loads before they are published."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from freezeflow.errors import ValidationFailed
from freezeflow.exports.registry import format_named
from freezeflow.stages.export import demands, params_of
from tests.exports.running import ROOT, Branches

NOTHING = {"atol": 0.0, "rtol": 0.0}
SIGNATURES = ["serving_default", "words"]
DIFFERENT = "is not what the original gives: max_abs"
LOADERS = ["tf2_loader", "tf1_loader"]

EXPORTS = {
    "pb": {"to": "pb/m.pb", "check": NOTHING},
    "text": {"to": "text/m.pbtxt", "check": NOTHING},
    "external": {"to": "x/m.pb", "weights": "external", "external_from": 16, "check": NOTHING},
    "folder": {"to": "folder", "format": "saved_model", "check": {**NOTHING, "samples": 2}},
    "checkpoint": {
        "to": "checkpoint",
        "format": "saved_model",
        "weights": "checkpoint",
        "serving": 3,
        "check": True,
    },
    "unchecked": {"to": "unchecked/m.pb", "weights": "external", "external_from": 16},
    "unchecked-folder": {"to": "unchecked-folder", "format": "saved_model"},
}
VALIDATED = {
    "by-tensorflow": ("unchecked", {"runtime": "tensorflow", "edges": True}),
    "by-tf2": ("unchecked-folder", {"runtime": "tf2_loader", "samples": 1}),
    "by-tf1": ("checkpoint", {"runtime": "tf1_loader", "samples": 3}),
}


class Two(tf.Module):
    """Two signatures: weights that can lie outside, and a table that has to be filled."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.random.stateless_normal([32, 40], [1, 2]))
        pairs = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64))
        self.table = tf.lookup.StaticHashTable(pairs, -1)

    @tf.function(input_signature=[tf.TensorSpec([None, 32], tf.float32, name="x")])
    def numbers(self, x):
        return {"y": tf.nn.relu(x @ self.w)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def words(self, word):
        return {"id": self.table.lookup(word), "upper": tf.strings.upper(word)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    made = Two()
    named = {"serving_default": made.numbers, "words": made.words}
    tf.saved_model.save(made, str(folder), signatures=named)
    return folder


@pytest.fixture(scope="module")
def checked(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked")
    return Branches(folder, EXPORTS, model=model, checks=VALIDATED, signatures=SIGNATURES)


@pytest.mark.parametrize("branch", ["pb", "text", "external", "folder", "checkpoint"])
def test_every_loader_and_every_signature_gives_the_originals_bits(checked, branch):
    verdicts = checked.facts(branch)["checks"]
    runtimes = LOADERS if branch in ("folder", "checkpoint") else ["tensorflow"]
    found = [(verdict["runtime"].split()[0], verdict["signature"]) for verdict in verdicts]
    assert found == [(runtime, name) for runtime in runtimes for name in SIGNATURES]
    for verdict in verdicts:
        assert verdict["calls"] == (2 if branch == "folder" else 4)
        outputs = verdict["outputs"]
        assert set(outputs) == ({"y"} if verdict["signature"] == SIGNATURES[0] else {"id", "upper"})
        assert {output.get("max_abs") for output in outputs.values()} <= {0.0, None}


def test_the_check_changes_no_byte_of_the_file(checked):
    one, other = (
        {p.name: p.read_bytes() for p in checked.published(name) if "manifest" not in p.name}
        for name in ("external", "unchecked")
    )
    assert len(one) > 1
    assert one == other


def test_unless_asked_an_export_takes_no_tensorflow(checked):
    assert "checks" not in checked.facts("unchecked")
    for name in ("frozen_graph", "saved_model"):
        params = params_of(name)(to="m.pb", format=name)
        assert not demands(params).in_tensorflow
        assert demands(params).tools == ()
        assert len(format_named(name).runtimes) == (2 if name == "saved_model" else 1)
    assert "tensorflow" in checked.plan_step("pb").tools


@pytest.mark.parametrize("branch", VALIDATED)
def test_validate_takes_the_very_file(checked, branch):
    verdicts = checked.facts(branch)["runtime_verdicts"]
    assert [verdict["signature"] for verdict in verdicts] == SIGNATURES
    assert all(v["runtime"].startswith(VALIDATED[branch][1]["runtime"]) for v in verdicts)
    assert ("edge" in verdicts[0]["kinds"]) == (branch == "by-tensorflow")


def test_weights_that_mean_something_else_are_told(model, tmp_path):
    """Eight bits for a weight are not the original: no file appears, and what was there stays."""
    exports = {
        "pb": {"to": "m.pb", "weights": "external", "external_from": 16, "check": NOTHING},
        "folder": {"to": "new/folder", "format": "saved_model", "check": NOTHING},
    }
    (tmp_path / "m.pb").write_bytes(b"older")
    before = ("freeze", {"strip": {"identities": True}}, "quantize_weights")
    ran = Branches(tmp_path, exports, model=model, before=before, signatures=SIGNATURES)
    for name in exports:
        error = ran.error(name)
        assert isinstance(error, ValidationFailed)
        assert "output 'y' in " in error.message
        assert DIFFERENT in error.message
    assert (tmp_path / "m.pb").read_bytes() == b"older"
    assert not (tmp_path / "m.weights").exists()
    assert not list((tmp_path).glob("**/saved_model.pb"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".m")]


class Counting(tf.Module):
    """A variable that every call writes, and a table out of a file."""

    def __init__(self, words):
        super().__init__()
        self.total = tf.Variable(1.5)
        lines = tf.lookup.TextFileIndex
        pairs = tf.lookup.TextFileInitializer(
            str(words), tf.string, lines.WHOLE_LINE, tf.int64, lines.LINE_NUMBER
        )
        self.table = tf.lookup.StaticHashTable(pairs, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x):
        self.total.assign_add(tf.reduce_sum(x))
        words = tf.constant(["two", "none", "one"])
        return {"total": self.total.read_value(), "ids": self.table.lookup(words)}


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counting")
    (folder / "words.txt").write_text("one\ntwo\n")
    made = Counting(folder / "words.txt")
    tf.saved_model.save(made, str(folder / "m"), signatures={"serving_default": made.serve})
    return folder / "m"


def test_kept_variables_and_tables_of_files(counting, tmp_path):
    """Each loader's calls follow each other: the variable has to be what the calls before left in it."""
    exports = {"checked": {"to": "checked", "format": "saved_model", "check": NOTHING}}
    exports["folder"] = {"to": "folder", "format": "saved_model"}
    checks = {runtime: ("folder", {"runtime": runtime, **NOTHING}) for runtime in LOADERS}
    before = ({"freeze": {"written": "keep"}}, "strip")
    ran = Branches(tmp_path, exports, model=counting, before=before, checks=checks)
    assert ran.facts("checked")["variables"] == 1
    verdicts = list(ran.facts("checked")["checks"])
    verdicts += [ran.facts(runtime)["runtime_verdicts"][0] for runtime in LOADERS]
    assert [verdict["runtime"].split()[0] for verdict in verdicts] == LOADERS * 2
    for verdict in verdicts:
        assert verdict["calls"] > 1
        assert set(verdict["outputs"]) == {"total", "ids"}


def test_a_variable_that_no_call_changes_is_told(counting, tmp_path):
    exports = {"folder": {"to": "folder", "format": "saved_model", "check": True}}
    before = ({"freeze": {"written": "drop"}}, "strip")
    ran = Branches(tmp_path, exports, model=counting, before=before)
    assert f"output 'total' in {LOADERS[0]}" in ran.error("folder").message
    assert not (tmp_path / "folder").exists()


# File, format, fault, and what is told.
DAMAGED = [
    ("a/m.pb", "frozen_graph", "graph", "ValidationFailed", DIFFERENT),
    ("b/m.pb", "frozen_graph", "cut", "RuntimeRefused", "TensorFlow: this is no GraphDef"),
    ("c/m.pbtxt", "frozen_graph", "weight", "ValidationFailed", DIFFERENT),
    ("d/m", "saved_model", "graph", "ValidationFailed", DIFFERENT),
    ("e/m", "saved_model", "cut", "RuntimeRefused", "TensorFlow: "),
    ("f/m.pb", "frozen_graph", "none", "", ""),
]


@pytest.fixture(scope="module")
def damaged(model, tmp_path_factory):
    """The folder of all exports, and what each told; one process, which imports TensorFlow once."""
    folder = tmp_path_factory.mktemp("damaged")
    exports = [(str(folder / to), form, fault) for to, form, fault, *_ in DAMAGED]
    for to, *_ in exports:
        Path(to).parent.mkdir()
    command = [sys.executable, "-m", "tests.exports.damaged", str(model), json.dumps(exports)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return folder, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", range(len(DAMAGED)))
def test_a_damaged_export_leaves_no_file(damaged, case):
    folder, told = damaged
    to, _, fault, kind, text = DAMAGED[case]
    if fault == "none":
        assert told[case] == {}
        assert (folder / to).exists()
        return
    assert told[case]["kind"] == kind
    assert text in told[case]["message"]
    assert list((folder / to).parent.iterdir()) == []
