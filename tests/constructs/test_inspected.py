"""What `inspect` tells of writes, tables and random ops, without weights being read."""

from __future__ import annotations

import tensorflow as tf

from freezeflow import api
from tests.constructs import tf2_models
from tests.constructs.test_bind import batch_norm, batch_norm_tf2
from tests.constructs.test_tf1 import saved
from tests.constructs.test_tf2 import save
from tests.constructs.tf2_models import spec, weight


def inspected(path):
    (found,) = api.inspect(path).signatures
    return found


def test_a_write_that_nobody_sees(tmp_path):
    (model, function), _ = tf2_models.write_that_nobody_sees()
    save(model, function, tmp_path / "model")
    found = inspected(tmp_path / "model")
    assert found.obstacle is None
    assert found.writes
    assert not any(write.read for write in found.writes)
    assert all(write.op.startswith("Assign") for write in found.writes)


def test_a_write_in_a_branch_that_an_output_sees(tmp_path):
    model, function = batch_norm_tf2()
    save(model, function, tmp_path / "model")
    found = inspected(tmp_path / "model")
    (write,) = found.writes
    assert write.variable == "mean"
    assert write.op == "AssignVariableOp"
    assert write.path[0].startswith("cond")
    assert write.read[0].startswith("cond")
    assert found.obstacle is not None
    assert found.frozen_bytes is None
    (mean,) = found.variables
    assert mean.trainable


def test_a_write_of_tf1(tmp_path):
    path = saved(batch_norm, False, tmp_path / "model")
    (write,) = inspected(path).writes
    assert (write.variable, write.op, write.path) == ("mean", "Assign", ("cond/Assign",))


def test_tables_and_random_ops(tmp_path):
    words = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(["a"], tf.constant([1], tf.int64)), -1
    )

    def run(m, x):
        noise = tf.random.normal([2]) + tf.random.stateless_normal([2], [1, 2])
        return {"y": m.words.lookup(x), "noise": noise * m.w}

    model, function = tf2_models.build(
        run, [spec([None], tf.string)], words=words, w=weight(2, trainable=False)
    )
    save(model, function, tmp_path / "model")
    found = inspected(tmp_path / "model")
    (table,) = found.tables
    assert (table.op, table.key.tf_name, table.value.tf_name) == ("HashTableV2", "string", "int64")
    assert found.random_ops == {"RandomStandardNormal": 1}
    assert [variable.trainable for variable in found.variables] == [False]


def test_a_checkpoint_is_inspected_like_a_saved_model(tmp_path):
    model = tf.Module()
    model.v = tf.Variable(tf.zeros([300, 2]))
    model.same = tf.Variable(tf.zeros([300, 2]))
    model.other = tf.Variable(tf.ones([3]))
    model.serve = tf.function(
        lambda x: {"y": x * model.v[0] + model.same[0] + model.other[:2]},
        input_signature=[spec([None, 2])],
    )
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.serve)
    checkpoint = api.inspect(tmp_path / "model").checkpoint
    assert (checkpoint.duplicates, checkpoint.duplicate_bytes) == (1, 2400)


def test_partly_frozen_graphs(tmp_path):
    """What is frozen stays, what is not is told."""
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        v = tf.compat.v1.get_variable("v", [4], use_resource=True)
        tf.identity(x * v + tf.constant([1.0, 2.0, 3.0, 4.0]), name="y")
    tf.io.write_graph(graph, str(tmp_path), "partly.pb", as_text=False)
    (found,) = api.inspect(tmp_path / "partly.pb").signatures
    assert set(found.signature.outputs) == {"y"}  # not what only reads the variable
    assert "variable 'v' has no value" in found.obstacle.message
