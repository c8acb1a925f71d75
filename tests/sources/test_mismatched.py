"""Models whose parts are each whole, but do not belong together, or ask for what cannot be."""

from __future__ import annotations

import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.messages import message_class
from freezeflow.values import ModelSource
from tests.sources.conftest import KINDS
from tests.sources.damage import copy_of, frozen_bytes
from tests.sources.edits import MESSAGES, graph_file

v1 = tf.compat.v1


def refusal(source, scratch):
    with pytest.raises(ModelRefused) as refused:
        frozen_bytes(source, scratch)
    assert 1 <= len(str(refused.value).splitlines()) <= 3
    return refused.value


class Held(tf.Module):
    def __init__(self, **held):
        super().__init__()
        for name, value in held.items():
            setattr(self, name, tf.Variable(value))

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def serve(self, x):
        return {
            v.name.split(":")[0] + str(i): v + tf.cast(x, v.dtype)
            for i, v in enumerate(self.variables)
        }


def saved(path, **held):
    model = Held(**held)
    tf.saved_model.save(model, str(path), signatures=model.serve)
    return ModelSource(kind="saved_model", path=path)


FOUR = np.arange(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (FOUR.reshape(2, 2), r"is float32\[4\], the checkpoint holds float32\[2, 2\]"),
        (FOUR[:3], r"is float32\[4\], the checkpoint holds float32\[3\]"),
        (FOUR.astype(np.int32), r"is float32\[4\], the checkpoint holds int32\[4\]"),
    ],
    ids=["shape", "size", "dtype"],
)
@pytest.mark.parametrize("how", ["beside", "given"])
def test_another_models_variables(other, says, how, tmp_path):
    source = saved(tmp_path / "model", w=FOUR)
    saved(tmp_path / "other", w=other)
    if how == "beside":
        shutil.rmtree(tmp_path / "model/variables")
        shutil.copytree(tmp_path / "other/variables", tmp_path / "model/variables")
    else:
        weights = tmp_path / "other/variables/variables"
        source = ModelSource(kind="saved_model", path=source.path, weights=weights)
    error = refusal(source, tmp_path)
    assert error.hint == "Graph and checkpoint do not belong together."
    with pytest.raises(ModelRefused, match=says):
        frozen_bytes(source, tmp_path)


def test_a_variable_of_unknown_shape_takes_any(tmp_path):
    class Any(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(FOUR, shape=tf.TensorShape([None]))

        @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
        def serve(self, x):
            return {"y": self.w + x}

    model = Any()
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.serve)
    assert frozen_bytes(ModelSource(kind="saved_model", path=tmp_path / "model"), tmp_path)


def test_swapped_data_files(tmp_path):
    """Two shards of one checkpoint under each other's names."""
    with tf.Graph().as_default(), v1.Session() as session:
        with tf.device("/cpu:0"):
            a = v1.get_variable("a", initializer=np.arange(500, dtype=np.float32))
            b = v1.get_variable("b", initializer=-np.arange(500, dtype=np.float32))
            tf.add(a, b, name="y")
        session.run(v1.global_variables_initializer())
        for name, held in (("one", a), ("two", b)):
            prefix = str(tmp_path / name)
            session.run(tf.raw_ops.SaveV2(
                prefix=prefix, tensor_names=[held.op.name], shape_and_slices=[""], tensors=[held]
            ))  # fmt: skip
        parts = [str(tmp_path / "one"), str(tmp_path / "two")]
        both = str(tmp_path / "both")
        session.run(tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=parts, destination_prefix=both, delete_old_dirs=False
        ))  # fmt: skip
        v1.train.export_meta_graph(both + ".meta", saver_def=v1.train.Saver().as_saver_def())
    source = ModelSource(kind="checkpoint", path=tmp_path / "both", outputs=("y",))
    want = frozen_bytes(source, tmp_path)
    first, second = sorted(tmp_path.glob("both.data-*"))
    assert first.stat().st_size == second.stat().st_size
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert "checksum" in refusal(source, tmp_path).message
    assert want


def edited(good, kind, tmp_path, change):
    """A copy of a good model whose graph was changed by hand."""
    source, root = good(kind)
    copy = copy_of(source, root, tmp_path / "copy")
    message = message_class(MESSAGES[source.kind]).FromString(graph_file(source).read_bytes())
    graph = message
    if source.kind != "frozen_graph":
        graph = (message.meta_graphs[0] if source.kind == "saved_model" else message).graph_def
    change(graph)
    graph_file(copy).write_bytes(message.SerializeToString())
    return copy


GRAPHS = [kind for kind in KINDS if kind != "checkpoint_v1"]


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_for_newer_readers(kind, good, tmp_path):
    def change(graph):
        graph.versions.min_consumer = graph.versions.producer = 100_000

    error = refusal(edited(good, kind, tmp_path, change), tmp_path)
    assert "asks for readers of version 100000" in error.message


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_of_an_unknown_newer_writer(kind, good, tmp_path):
    """TensorFlow reads such graphs, so does freezeflow."""

    def change(graph):
        graph.versions.producer = 100_000

    assert frozen_bytes(edited(good, kind, tmp_path, change), tmp_path)


@pytest.mark.parametrize("kind", ["tf2_module", "keras_export", "frozen_graph"])
def test_a_function_that_calls_itself(kind, good, tmp_path):
    def change(graph):
        for function in graph.library.function:
            call = function.node_def.add(name="again", op="PartitionedCall")
            call.attr["f"].func.name = function.signature.name
            call.input.extend(arg.name for arg in function.signature.input_arg)
            call.attr["Tin"].list.type.extend(arg.type for arg in function.signature.input_arg)
            call.attr["Tout"].list.type.extend(arg.type for arg in function.signature.output_arg)
            function.control_ret["again"] = "again"
            function.signature.control_output.append("again")

    source = edited(good, kind, tmp_path, change)
    assert "calls itself" in refusal(source, tmp_path).message


@pytest.mark.parametrize("kind", GRAPHS)
def test_an_input_from_nowhere(kind, good, tmp_path):
    def change(graph):
        for node in [n for n in graph.node if n.input]:
            node.input[0] = "nowhere"

    source = edited(good, kind, tmp_path, change)
    assert "nowhere" in refusal(source, tmp_path).message


@pytest.mark.parametrize("kind", GRAPHS)
def test_names_that_are_no_text(kind, good, tmp_path):
    """Bytes that are no UTF-8 where the format wants text."""
    source, root = good(kind)
    copy = copy_of(source, root, tmp_path / "copy")
    data = graph_file(source).read_bytes()
    place = data.index(b"MatMul")
    graph_file(copy).write_bytes(data[:place] + b"Mat\xff\xfeul"[:6] + data[place + 6 :])
    refusal(copy, tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in GRAPHS if kind != "keras_export"])
def test_sizes_beyond_all_memory(kind, good, tmp_path):
    """Constants that claim to be of exabytes take no memory."""

    def change(graph):
        bodies = [graph.node, *(f.node_def for f in graph.library.function)]
        for node in (n for body in bodies for n in body if n.op == "Const"):
            tensor = node.attr["value"].tensor
            if tensor.dtype != 7:
                del tensor.tensor_shape.dim[:]
                tensor.tensor_shape.dim.add(size=2**40)
                tensor.tensor_shape.dim.add(size=2**20)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(edited(good, kind, tmp_path, change), tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB
