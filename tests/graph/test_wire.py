"""Large contents cut out of messages, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.graph import wire
from freezeflow.messages import message_class
from freezeflow.values import DType

MARKER = b"marker-of-16-byt"


def saved_model(sizes, in_function=False, dtype=DType.FLOAT):
    """A SavedModel of Const nodes whose contents have these sizes."""
    message = message_class("SavedModel")(saved_model_schema_version=1)
    graph = message.meta_graphs.add().graph_def
    nodes = graph.library.function.add().node_def if in_function else graph.node
    for number, size in enumerate(sizes):
        made = nodes.add(name=f"c{number}", op="Const")
        made.attr["dtype"].type = int(dtype)
        made.attr["value"].tensor.dtype = int(dtype)
        made.attr["value"].tensor.tensor_content = bytes([number % 251]) * size
    return message


@given(st.lists(st.sampled_from([0, 1, 1023, 1024, 1025, 5000, 70000]), max_size=5), st.booleans())
def test_what_is_cut_out_fits_back(sizes, in_function):
    message = saved_model(sizes, in_function)
    data = message.SerializeToString()
    slim, cuts = wire.excise(memoryview(data), "SavedModel", MARKER)
    assert [cut.length for cut in cuts] == [s for s in sizes if s > wire.LARGE_TENSOR_BYTES]
    parsed = type(message).FromString(slim)
    graph = parsed.meta_graphs[0].graph_def
    nodes = graph.library.function[0].node_def if in_function else graph.node
    for node in nodes:
        tensor = node.attr["value"].tensor
        if tensor.tensor_content.startswith(MARKER):
            cut = cuts[int.from_bytes(tensor.tensor_content[len(MARKER) :], "big")]
            tensor.tensor_content = data[cut.offset : cut.offset + cut.length]
    assert parsed == message


def test_small_messages_stay_as_they_are():
    data = saved_model([10, 1024]).SerializeToString()
    assert wire.excise(memoryview(data), "SavedModel", MARKER) == (data, [])


def test_strings_stay_inside():
    data = saved_model([5000], dtype=DType.STRING).SerializeToString()
    assert wire.excise(memoryview(data), "SavedModel", MARKER) == (data, [])


def test_other_ops_keep_their_tensors():
    message = saved_model([5000])
    message.meta_graphs[0].graph_def.node[0].op = "ImmutableConst"
    data = message.SerializeToString()
    assert wire.excise(memoryview(data), "SavedModel", MARKER) == (data, [])


def test_every_cut_of_a_message_is_noticed_or_harmless():
    """Never another exception, never bytes that are not there."""
    data = saved_model([2000, 3], in_function=True).SerializeToString()
    for length in range(len(data)):
        try:
            _, cuts = wire.excise(memoryview(data)[:length], "SavedModel", MARKER)
        except wire.Truncated:
            continue
        assert all(cut.offset + cut.length <= length for cut in cuts)


@given(st.binary(max_size=60))
def test_any_bytes(data):
    try:
        slim, cuts = wire.excise(memoryview(data), "GraphDef", MARKER)
    except wire.Truncated:
        return
    assert (slim, cuts) == (data, [])


@given(st.integers(0, 2**64 - 1))
def test_numbers(number):
    data = wire.varint(number)
    assert wire.read_varint(memoryview(data), 0, len(data)) == (number, len(data))
    with pytest.raises(wire.Truncated):
        wire.read_varint(memoryview(data), 0, len(data) - 1)


def test_a_number_that_does_not_end():
    with pytest.raises(wire.Truncated):
        wire.read_varint(memoryview(b"\xff" * 20), 0, 20)


def test_a_damaged_file_can_be_closed(tmp_path):
    """No view of the mapping outlives the error."""
    import mmap

    file = tmp_path / "model.pb"
    file.write_bytes(saved_model([5000, 5000]).SerializeToString()[:-100])
    with (
        open(file, "rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        view = memoryview(mapped)
        with pytest.raises(wire.Truncated) as kept:
            wire.excise(view, "SavedModel", MARKER)
        view.release()
    assert kept.value is not None
