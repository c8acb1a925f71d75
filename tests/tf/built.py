"""Models for tests, built with TensorFlow, and what runs them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from freezeflow.graph.graph import node_of
from freezeflow.graph.model import Model
from freezeflow.graph.read import GraphReader
from freezeflow.graph.wire import excise
from freezeflow.graph.write import graph_def_bytes
from freezeflow.messages import message_class
from freezeflow.tf.sessions import exact_config
from freezeflow.values import Digest, DType, Location, Signature, TensorRef, TensorSpec

v1 = tf.compat.v1


@dataclasses.dataclass
class FakeContext:
    """A stage's context that keeps tensors as files of a folder."""

    scratch: Path
    base: Path = Path("/")
    recipe_digest: str | None = None
    lines: list = dataclasses.field(default_factory=list)
    warnings: list = dataclasses.field(default_factory=list)
    hashed: dict = dataclasses.field(default_factory=dict)

    def put_tensor(self, data, dtype, shape):
        digest = Digest.of(data)
        path = self.scratch / digest.hex
        path.write_bytes(data)
        return TensorRef(digest, dtype, shape, location_of(path, 0, len(data)))

    def keep(self, path):
        digest = Digest.of(path.read_bytes())
        path.rename(self.scratch / digest.hex)
        return digest

    def log(self, line):
        self.lines.append(line)

    def warn(self, line):
        self.warnings.append(line)


def location_of(path, offset, length):
    status = os.stat(path)
    return Location(str(path), offset, length, status.st_mtime_ns, status.st_size, status.st_ino)


def model_of(graph, inputs, outputs, folder, init=()):
    """The Model of a `tf.Graph` or GraphDef.

    Args:
        graph: The graph, constants instead of variables.
        inputs: Key to tensor.
        outputs: Key to tensor.
        folder: Where its file with the constants may lie.
        init: Names of nodes that run once.
    """
    graph_def = graph.as_graph_def() if isinstance(graph, tf.Graph) else graph
    path = folder / f"{len(list(folder.iterdir()))}.pb"
    path.write_bytes(graph_def.SerializeToString())
    data = memoryview(path.read_bytes())
    slim, cuts = excise(data, "GraphDef", b"test marker")
    placed = [
        (Digest.of(data[c.offset : c.offset + c.length]), location_of(path, c.offset, c.length))
        for c in cuts
    ]
    reader = GraphReader(
        message_class("GraphDef").FromString(slim), marker=b"test marker", cuts=placed
    )
    signature = Signature(
        {key: spec_of(tensor) for key, tensor in sorted(inputs.items())},
        {key: spec_of(tensor) for key, tensor in sorted(outputs.items())},
    )
    roots = [node_of(t.name) for t in (*inputs.values(), *outputs.values())]
    return Model(
        graph=reader.graph([*roots, *init]),
        signatures={"serving_default": signature},
        init=tuple(init),
    )


def spec_of(tensor):
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return TensorSpec(tensor.name, DType(tensor.dtype.as_datatype_enum), shape)


def run(model, feeds, signature="serving_default"):
    """Outputs of a model for inputs by key, run as level A runs it."""
    found = model.signatures[signature]
    graph = tf.Graph()
    with graph.as_default():
        data = graph_def_bytes(model.graph)
        tf.graph_util.import_graph_def(v1.GraphDef.FromString(data), name="")
    with v1.Session(graph=graph, config=exact_config()) as session:
        for name in model.init:
            session.run(name)
        fetches = {key: full_name(spec.tensor) for key, spec in found.outputs.items()}
        return session.run(
            fetches, {full_name(found.inputs[key].tensor): value for key, value in feeds.items()}
        )


def full_name(tensor):
    """A tensor as TensorFlow names it: ``x:0``."""
    return tensor if ":" in tensor else f"{tensor}:0"


def assert_same(before, after):
    """Asserts that two runs' outputs are equal to the byte."""
    assert before.keys() == after.keys()
    for key in before:
        if isinstance(before[key], bytes):  # a string scalar
            assert before[key] == after[key]
            continue
        assert before[key].dtype == after[key].dtype
        assert before[key].shape == after[key].shape
        if before[key].dtype == object:  # strings: their bytes lie elsewhere
            assert before[key].tolist() == after[key].tolist()
        else:
            assert np.asarray(before[key]).tobytes() == np.asarray(after[key]).tobytes()
