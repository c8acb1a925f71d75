"""Hostile models through the real command line, also on a kernel that confines nothing."""

from __future__ import annotations

import json
import os
import platform
import struct
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.cli.conftest import COMMAND
from tests.stages.test_validate import writing_graph

v1 = tf.compat.v1

pytestmark = pytest.mark.slow

RECIPE = """\
version: 1
name: {name}
model: {{{source}}}
stages:
  - load
  - freeze
  - strip
  - fold
  - validate: {{samples: 2, call_seconds: 2}}
  - export: build/{name}.pb
"""


# ---------------------------------------------------------------- graphs


def number():
    return v1.placeholder(tf.float32, [], name="x")


def text():
    return v1.placeholder(tf.string, [], name="x")


def tile():
    return number() + tf.reduce_sum(tf.tile([1.0], tf.constant([2**40], tf.int64)))


def tile_of_the_input():
    return tf.reduce_sum(tf.tile(number()[None], tf.constant([2**40], tf.int64)))


def range_():
    ends = (tf.constant(n, tf.int64) for n in (0, 2**42, 1))
    return number() + tf.cast(tf.reduce_sum(tf.range(*ends)), tf.float32)


def broadcast():
    return tf.reduce_sum(tf.broadcast_to(number(), [2**20, 2**20]))


def pad():
    return tf.reduce_sum(tf.pad(number()[None], [[0, 2**40]]))


def doubled_strings():
    piece = text()
    for _ in range(44):
        piece = tf.strings.join([piece, piece])
    return piece


def frames_without_end():
    v1.disable_control_flow_v2()
    try:
        return v1.while_loop(lambda y: y > -1.0, lambda y: y * 1.0, [tf.abs(number())])
    finally:
        v1.enable_control_flow_v2()


def lines_of_a_file():
    lines = tf.raw_ops.TextLineDataset(
        filenames=["/etc/passwd"], compression_type="", buffer_size=0
    )
    kinds = {"output_types": [tf.string], "output_shapes": [[]]}
    one = tf.raw_ops.TakeDataset(input_dataset=lines, count=1, **kinds)
    (line,) = tf.raw_ops.DatasetToSingleElement(dataset=one, **kinds)
    return tf.strings.join([text(), line])


def python():
    return tf.numpy_function(lambda x: x, [number()], tf.float32)


def all_reduced():
    return tf.raw_ops.CollectiveReduce(
        input=number(), group_size=2, group_key=1, instance_key=1, merge_op="Add", final_op="Id",
        subdiv_offsets=[0],
    )  # fmt: skip


def received():
    with tf.control_dependencies([number()]):
        return tf.raw_ops.CollectiveBcastRecv(
            T=tf.float32, group_size=2, group_key=1, instance_key=1, shape=[]
        )


# Which error ends it, and what it says; what is out of bounds ends by memory, time, or TensorFlow itself.
OUT_OF_BOUNDS = ("refuses every input", "memory", "killed", "no answer within 2 seconds")
CASES = {
    tile: ("StageFailed", OUT_OF_BOUNDS),
    tile_of_the_input: ("StageFailed", OUT_OF_BOUNDS),
    range_: ("StageFailed", OUT_OF_BOUNDS),
    broadcast: ("StageFailed", OUT_OF_BOUNDS),
    pad: ("StageFailed", OUT_OF_BOUNDS),
    doubled_strings: ("StageFailed", OUT_OF_BOUNDS),
    frames_without_end: ("StageFailed", ("no answer within 2 seconds",)),
    lines_of_a_file: ("ModelRefused", ("TextLineDataset",)),
    python: ("ModelRefused", ("Python",)),
    all_reduced: ("ModelRefused", ("CollectiveReduce",)),
    received: ("ModelRefused", ("CollectiveBcastRecv",)),
}


def save(graph, name, folder):
    (folder / f"{name}.pb").write_bytes(graph.as_graph_def().SerializeToString())
    source = f"frozen_graph: {name}.pb, inputs: [x], outputs: [y]"
    (folder / f"{name}.yaml").write_text(RECIPE.format(name=name, source=source))


def save_table(path, folder):
    """A SavedModel whose table is filled from a file by its path."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = text()
        table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
        fill = tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename=path, key_index=-2, value_index=-1
        )
        y = tf.raw_ops.LookupTableFindV2(table_handle=table, keys=x, default_value=[-1])
        ends = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.Builder(str(folder / "table"))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": ends}, main_op=fill
        )
        builder.save()
    source = "saved_model: table"
    (folder / "table.yaml").write_text(RECIPE.format(name="table", source=source))


def save_asset(folder):
    """A SavedModel whose vocabulary is a link to a file elsewhere."""
    (folder / "words.txt").write_text("a\nb\n")
    module = tf.Module()
    filler = tf.lookup.TextFileInitializer(
        str(folder / "words.txt"),
        *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
        *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
    )
    module.table = tf.lookup.StaticHashTable(filler, -1)
    module.call = tf.function(
        lambda x: {"y": module.table.lookup(x)},
        input_signature=[tf.TensorSpec([], tf.string, name="x")],
    )
    tf.saved_model.save(module, str(folder / "link"), signatures=module.call)
    asset = folder / "link" / "assets" / "words.txt"
    asset.unlink()
    asset.symlink_to("/etc/passwd")
    (folder / "link.yaml").write_text(RECIPE.format(name="link", source="saved_model: link"))


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """All of them run at once: the folder, and the errors by recipe."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "pyproject.toml").touch()
    for make in CASES:
        with tf.Graph().as_default() as graph:
            y = make()
            tf.identity(y[0] if isinstance(y, (list, tuple)) else y, name="y")
        save(graph, make.__name__, folder)
    save_table("/etc/passwd", folder)
    save_asset(folder)
    before = sorted(path.name for path in folder.iterdir())
    words = ["run", *sorted(p.name for p in folder.glob("*.yaml")), "--keep-going", "--json"]
    done = freezeflow(folder, *words, "--step-timeout", "60s", "--mem-limit", "3GB")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    errors = {
        plan["name"]: step["error"]
        for plan in found["plans"]
        for step in plan["steps"]
        if step.get("error")
    }
    return folder, before, errors, done.stderr


def freezeflow(folder, *words, before=()):
    return subprocess.run(
        [*before, COMMAND, *words],
        cwd=folder,
        env={**os.environ, "FREEZEFLOW_CACHE_DIR": str(folder.parent / f"{folder.name}-cache")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_each_ends_in_a_clear_refusal(ended, make):
    error = ended[2][make.__name__]
    kind, words = CASES[make]
    assert error["kind"] == kind
    assert any(word in error["message"] for word in words), error


def test_files_outside_of_the_model_are_not_taken(ended):
    assert ended[2]["table"]["kind"] == ended[2]["link"]["kind"] == "ModelRefused"
    assert 'reads "/etc/passwd"' in ended[2]["table"]["message"]
    assert "lies outside" in ended[2]["link"]["message"]


def test_nothing_is_published_and_nothing_left(ended):
    folder, before, _, told = ended
    assert sorted(path.name for path in folder.iterdir()) == before
    assert "Traceback" not in told


# ---------------------------------------------------------------- a kernel that confines nothing

# Numbers of system calls: landlock_create_ruleset is the same everywhere.
_UNSHARE = {"x86_64": 272, "aarch64": 97}
_CREATE_RULESET = 444

_OLD_KERNEL = """
import ctypes, os, sys
program = bytes.fromhex(sys.argv[1])
filters = ctypes.create_string_buffer(program, len(program))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filters", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
given = Program(len(program) // 8, ctypes.cast(filters, ctypes.c_void_p))
assert libc.prctl(22, 2, ctypes.byref(given), 0, 0) == 0, ctypes.get_errno()  # seccomp, a filter
os.execv(sys.argv[2], sys.argv[2:])
"""


def old_kernel():
    """What starts a command on a kernel without Landlock and network namespaces: a seccomp filter."""
    load, equal, give = 0x20, 0x15, 0x06
    refuse, allow = 0x00050000, 0x7FFF0000
    unshare = _UNSHARE.get(platform.machine())
    if unshare is None or not sys.platform.startswith("linux"):
        pytest.skip("the number of the system call is not known here")
    program = (
        (load, 0, 0, 0),
        (equal, 2, 0, _CREATE_RULESET),
        (equal, 2, 0, unshare),
        (give, 0, 0, allow),
        (give, 0, 0, refuse | 38),  # ENOSYS
        (give, 0, 0, refuse | 1),  # EPERM
    )
    packed = b"".join(struct.pack("HBBI", *each) for each in program)
    return [sys.executable, "-c", _OLD_KERNEL, packed.hex()]


@pytest.mark.parametrize("kind", ["WriteFile", "PrintV2", "DebugIdentity"])
def test_without_confinement_the_list_of_ops_still_refuses(tmp_path, kind):
    target = tmp_path / "written"
    save(writing_graph(kind, target), "writing", tmp_path)
    done = freezeflow(tmp_path, "run", "writing.yaml", before=old_kernel())
    assert kind in done.stderr
    assert done.returncode == 5
    assert not target.exists()


def test_reduced_confinement_is_said(tmp_path):
    with tf.Graph().as_default() as graph:
        tf.identity(number() * 2.0, name="y")
    save(graph, "fine", tmp_path)
    done = freezeflow(tmp_path, "run", "fine.yaml", "--json", before=old_kernel())
    assert done.returncode == 0, done.stderr
    (verdict,) = (
        step["facts"]["verdict"]
        for plan in json.loads(done.stdout)["plans"]
        for step in plan["steps"]
        if step["stage"] == "validate"
    )
    record = verdict["settings"]["confinement"]
    assert record["writes"] == record["network"] == "not confined"
    assert "not confined" in done.stderr
