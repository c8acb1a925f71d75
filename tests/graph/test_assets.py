"""Vocabulary files as constants; the file's format is TensorFlow's."""

from __future__ import annotations

import dataclasses

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.assets import embed_assets
from freezeflow.graph.model import Asset
from freezeflow.graph.tensor_values import elements
from freezeflow.graph.verify import verify
from freezeflow.sources.graph_file import tensor_of_file
from freezeflow.values import DType
from tests.graphs import const, graph, model, node, placeholder, spec

S, INT, F = DType.STRING, DType.INT64, DType.FLOAT
WHOLE, NUMBER = -2, -1


def table_model(tmp_path, content, *, keys=(S, WHOLE), values=(INT, NUMBER), reader=None, **more):
    (tmp_path / "words.txt").write_bytes(content)
    fill = node(
        "fill", "InitializeTableFromTextFileV2", "table", "path",
        key_index=keys[1], value_index=values[1], **{"vocab_size": -1, "delimiter": "\t", **more},
    )  # fmt: skip
    nodes = [
        placeholder("x", keys[0]),
        const("asset", b"/somewhere/words.txt", S),
        node("path", "Identity", "asset", T=S),
        node("table", "HashTableV2", key_dtype=keys[0], value_dtype=values[0]),
        reader or fill,
    ]
    asset = Asset(name="words.txt", tensor="asset", content=tensor_of_file(tmp_path / "words.txt"))
    return model(graph(*nodes), {"x": spec("x", keys[0])}, {}, init=("fill",), assets=(asset,))


def filled(made):
    result = embed_assets(made)
    assert not result.assets
    nodes = result.graph.nodes
    assert nodes["fill"].op == "InitializeTableV2"
    return [
        elements(attrs.message(nodes[n].attrs["value"]).tensor) for n in nodes["fill"].inputs[1:]
    ]


@pytest.mark.parametrize("content", [b"a\nb\n", b"a\nb", b"a\r\nb\r\n"])
def test_lines_and_their_numbers(content, tmp_path):
    assert filled(table_model(tmp_path, content)) == [[b"a", b"b"], [0, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a\n\nb\n", "has an empty line, number 2"), (b"", "is empty"), (b"a\na\n", "'a' twice")],
)
def test_what_tensorflow_refuses(content, message, tmp_path):
    with pytest.raises(ModelRefused, match=message):
        filled(table_model(tmp_path, content))


def test_columns(tmp_path):
    made = table_model(tmp_path, b"7,1.5,x\n8,-2,y\n", keys=(INT, 0), values=(F, 1), delimiter=",")
    assert filled(made) == [[7, 8], [1.5, -2.0]]


def test_only_so_many_lines(tmp_path):
    assert filled(table_model(tmp_path, b"a\nb\nc\n", vocab_size=2)) == [[b"a", b"b"], [0, 1]]


def test_lines_are_bytes(tmp_path):
    assert filled(table_model(tmp_path, b"\xff\x00\n"))[0] == [b"\xff\x00"]


@pytest.mark.parametrize(
    ("content", "more", "problem"),
    [
        (b"a\n", {"vocab_size": 2}, "has 1 lines, the table asks for 2"),
        (b"a\tb\nc\n", {"keys": (S, 1)}, "has no column 1 in line 2"),
        (b"a\n", {"keys": (INT, 0)}, "holds 'a', which is no int64"),
        (b"9223372036854775808\n", {"keys": (INT, 0)}, "which is no int64"),
        (b"a\n", {"keys": (S, -9)}, "has no column -9"),
        (b"a\n", {"delimiter": ""}, "is to be split at nothing"),
    ],
)
def test_a_file_that_does_not_fit(content, more, problem, tmp_path):
    with pytest.raises(ModelRefused, match=problem) as refused:
        embed_assets(table_model(tmp_path, content, **more))
    assert refused.value.where == "fill" and refused.value.hint


def test_a_file_that_is_read_whole(tmp_path):
    made = table_model(tmp_path, b"text\x00", reader=node("fill", "ReadFile", "path"))
    node_ = embed_assets(made).graph.nodes["fill"]
    assert elements(attrs.message(node_.attrs["value"]).tensor) == [b"text\x00"]


def test_a_path_that_goes_elsewhere(tmp_path):
    made = table_model(tmp_path, b"x", reader=node("fill", "StringLength", "path", unit="BYTE"))
    with pytest.raises(ModelRefused, match=r"StringLength reads the asset file 'words.txt' itself"):
        embed_assets(made)


def test_without_assets_nothing_happens():
    made = model(graph(placeholder("x")), {}, {})
    assert embed_assets(made) is made and verify(made) == ()


@pytest.mark.parametrize("path", [b"/etc/passwd", b"../outside.txt"])
def test_a_vocabulary_that_is_no_asset_is_refused(path, tmp_path):
    made = table_model(tmp_path, b"a\n")
    nodes = {**made.graph.nodes, "asset": const("asset", path, S)}
    with pytest.raises(ModelRefused, match="a file that is not part of the model") as told:
        embed_assets(
            dataclasses.replace(made, assets=(), graph=dataclasses.replace(made.graph, nodes=nodes))
        )
    assert told.value.where == "fill"
    assert path.decode() in told.value.message


def test_a_checkpoint_that_an_output_reads_is_refused(tmp_path):
    read = node("read", "RestoreV2", "prefix", "names", "slices", dtypes=[F])
    nodes = [const(name, b"/elsewhere", S) for name in ("prefix", "names", "slices")]
    with pytest.raises(ModelRefused, match='RestoreV2 reads "/elsewhere"'):
        embed_assets(model(graph(*nodes, read), {}, {"y": spec("read", F)}))


@pytest.mark.parametrize(
    "reader",
    [
        node("read", "ReadFile", "path"),
        node("read", "MatchingFiles", "path"),
        node("read", "TFRecordDataset", "path", "path", "path"),
    ],
    ids=lambda reader: reader.op,
)
def test_a_file_that_a_constant_names_is_refused(reader):
    nodes = [const("path", b"/srv/words.txt", S), reader]
    outputs = {"y": spec("read", S)}
    with pytest.raises(ModelRefused, match=f'{reader.op} reads "/srv/words.txt", a file that is'):
        embed_assets(model(graph(*nodes), {}, outputs))
    named_in_a_call = [placeholder("path", S), reader]
    made = model(graph(*named_in_a_call), {"path": spec("path", S)}, outputs)
    assert embed_assets(made) is made
    no_paths = [const("path", [], S), reader]
    assert embed_assets(model(graph(*no_paths), {}, outputs)).graph.nodes.keys() == {"path", "read"}
