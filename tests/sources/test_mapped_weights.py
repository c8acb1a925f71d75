"""Graphs with their weights in files beside them, read again."""

import os

import numpy as np
import pytest
import tensorflow as tf

import freezeflow
from freezeflow.errors import ModelRefused
from freezeflow.exports import frozen_graph
from freezeflow.exports.frozen_graph import weights_folder
from freezeflow.graph.canonical import canonical
from freezeflow.sources.registry import source_files
from tests.exports.models import asked, dense
from tests.exports.test_weights import EXPECTED, X, external, run_mapped

v1 = tf.compat.v1


@pytest.fixture
def graph(tmp_path):
    """An exported graph with external weights."""
    return external(dense(tmp_path / "in"), tmp_path / "out" / "m.pb")[0].path


def weights(graph):
    (path,) = weights_folder(graph).iterdir()
    os.chmod(path, 0o644)
    return path


def source(graph):
    from freezeflow.api import find_source

    return find_source(graph, inputs=["x"], outputs=["y"])


def test_what_is_read_is_what_was_written(graph, tmp_path):
    model = freezeflow.freeze(source(graph))
    assert not [n for n in model.graph.nodes.values() if n.op == "ImmutableConst"]
    inline = tmp_path / "inline.pb"
    frozen_graph.write(asked(canonical(model), inline, params=frozen_graph.Params()))
    found = run_mapped(freezeflow.load_graph(inline), "y:0", {"x:0": X})
    np.testing.assert_array_equal(found, EXPECTED)


def test_it_can_be_looked_at_and_compared(graph, tmp_path):
    found = freezeflow.inspect(source(graph))
    assert found.freezes
    again = external(dense(tmp_path / "in2"), tmp_path / "again" / "m.pb")[0].path
    assert freezeflow.diff(graph, again).same


RECIPE = """\
version: 1
model: {{frozen_graph: {graph}, inputs: [x], outputs: [y]}}
stages: [load, freeze, {{validate: {{samples: 2}}}}, {{export: build/m.pb}}]
"""


def test_it_can_be_validated(graph, tmp_path):
    """TensorFlow itself maps the files of the original."""
    (tmp_path / "pyproject.toml").touch()
    recipe = tmp_path / "m.yaml"
    recipe.write_text(RECIPE.format(graph=graph))
    result = freezeflow.run(recipe, cache_dir=tmp_path / "cache")
    assert result.ok
    (verdict,) = (step.facts["verdict"] for step in result.steps if step.stage == "validate")
    assert verdict["equal"] is True


@pytest.mark.parametrize("region", ["{outside}", "../outside.bin"])
def test_other_files_are_not_mapped(graph, tmp_path, region):
    path = weights(graph)
    outside = graph.parent.parent / "outside.bin"
    path.rename(outside)
    graph_def = v1.GraphDef.FromString(graph.read_bytes())
    (mapped,) = (node for node in graph_def.node if node.op == "ImmutableConst")
    mapped.attr["memory_region_name"].s = region.format(outside=outside).encode()
    graph.write_bytes(graph_def.SerializeToString())
    recipe = tmp_path / "m.yaml"
    recipe.write_text(RECIPE.format(graph=graph))
    result = freezeflow.run(recipe, cache_dir=tmp_path / "cache")
    (error,) = (step.error for step in result.steps if step.error)
    assert error.exit_code == 5
    assert "ImmutableConst" in error.message


def test_its_files_are_those_of_the_source(graph):
    assert source_files(source(graph)) == (graph, weights(graph))


def test_files_that_are_missing_short_or_others(graph):
    path = weights(graph)
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(ModelRefused, match="not those that the file is named after"):
        freezeflow.freeze(source(graph))
    path.write_bytes(data[:-1])
    with pytest.raises(ModelRefused, match="bytes of"):
        freezeflow.freeze(source(graph))
    path.unlink()
    with pytest.raises(ModelRefused, match="cannot be read"):
        freezeflow.freeze(source(graph))


def test_nothing_outside_of_the_folder_is_read(graph, tmp_path):
    """Whoever reads somebody's graph does not want a file of their own in the result."""
    data = graph.read_bytes()
    name = f"m.weights/{weights(graph).name}".encode()
    (tmp_path / "secret").write_bytes(bytes(100_000))
    other = b"../secret".rjust(len(name), b"/")
    graph.write_bytes(data.replace(name, other))
    try:
        model = freezeflow.freeze(source(graph))
    except ModelRefused:
        return
    assert [n.op for n in model.graph.nodes.values()].count("ImmutableConst") == 1
