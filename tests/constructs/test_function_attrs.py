"""Functions whose attributes are placeholders, bound where they are called; called in every way."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from freezeflow.values import ModelSource
from tests.constructs import harness

v1 = tf.compat.v1

# y = x * x + its own shape, of any type T; and that twice.
LIBRARY = """
library {
  function {
    signature {
      name: "square_and_add"
      input_arg { name: "x" type_attr: "T" }
      output_arg { name: "y" type_attr: "T" }
      attr { name: "T" type: "type" }
    }
    node_def { name: "square" op: "Mul" input: "x" input: "x"
               attr { key: "T" value { placeholder: "T" } } }
    node_def { name: "shape" op: "Shape" input: "x"
               attr { key: "T" value { placeholder: "T" } }
               attr { key: "out_type" value { type: DT_INT64 } } }
    node_def { name: "more" op: "Cast" input: "shape:output:0"
               attr { key: "SrcT" value { type: DT_INT64 } }
               attr { key: "DstT" value { placeholder: "T" } } }
    node_def { name: "sum" op: "AddV2" input: "square:z:0" input: "more:y:0"
               attr { key: "T" value { placeholder: "T" } } }
    ret { key: "y" value: "sum:z:0" }
  }
  function {
    signature {
      name: "twice"
      input_arg { name: "x" type_attr: "U" }
      output_arg { name: "y" type_attr: "U" }
      attr { name: "U" type: "type" }
    }
    node_def { name: "one" op: "square_and_add" input: "x"
               attr { key: "T" value { placeholder: "U" } } }
    node_def { name: "two" op: "PartitionedCall" input: "one:y:0"
               attr { key: "Tin" value { list { type: DT_FLOAT } } }
               attr { key: "Tout" value { list { type: DT_FLOAT } } }
               attr { key: "f" value { func { name: "square_and_add"
                 attr { key: "T" value { placeholder: "U" } } } } } }
    ret { key: "y" value: "two:output:0" }
  }
}
"""


def call(function, binding, how):
    if how == "by name":
        return f'op: "{function}" attr {{ key: "{binding}" value {{ type: DT_FLOAT }} }}'
    types = "list { type: DT_FLOAT }"
    return f'''op: "PartitionedCall"
      attr {{ key: "Tin" value {{ {types} }} }} attr {{ key: "Tout" value {{ {types} }} }}
      attr {{ key: "f" value {{ func {{ name: "{function}"
        attr {{ key: "{binding}" value {{ type: DT_FLOAT }} }} }} }} }}'''


def branch():
    func = 'func { name: "square_and_add" attr { key: "T" value { type: DT_FLOAT } } }'
    other = 'func { name: "twice" attr { key: "U" value { type: DT_FLOAT } } }'
    types = "list { type: DT_FLOAT }"
    return f"""
      node {{ name: "p" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_BOOL }} }}
             attr {{ key: "shape" value {{ shape {{ }} }} }} }}
      node {{ name: "y" op: "StatelessIf" input: "p" input: "x"
        attr {{ key: "Tcond" value {{ type: DT_BOOL }} }}
        attr {{ key: "Tin" value {{ {types} }} }} attr {{ key: "Tout" value {{ {types} }} }}
        attr {{ key: "then_branch" value {{ {func} }} }}
        attr {{ key: "else_branch" value {{ {other} }} }} }}"""


X = """node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "shape" value { shape { dim { size: 3 } } } } }"""
GRAPHS = {
    "called by name": f'node {{ name: "y" input: "x" {call("square_and_add", "T", "by name")} }}',
    "called": f'node {{ name: "y" input: "x" {call("square_and_add", "T", "call")} }}',
    "through another": f'node {{ name: "y" input: "x" {call("twice", "U", "by name")} }}',
    "branches": branch(),
}


def once(x):
    return x * x + np.float32(3.0)


def twice(x):
    return once(once(x))


@pytest.mark.parametrize("kind", GRAPHS)
def test_placeholders_are_bound(kind, tmp_path):
    """TensorFlow's Python importer does not take such functions; what comes out, it does."""
    graph_def = v1.GraphDef()
    text_format.Parse(f"{X} {GRAPHS[kind]} versions {{ producer: 1882 }} {LIBRARY}", graph_def)
    (tmp_path / "graph.pb").write_bytes(graph_def.SerializeToString())
    source = ModelSource(kind="frozen_graph", path=tmp_path / "graph.pb")
    frozen = harness.freeze_model(source, tmp_path)
    x = np.array([1.5, -2.0, 0.25], np.float32)
    if kind == "branches":
        for side, answer in ((True, once), (False, twice)):
            have = harness.run_frozen(frozen, "serving_default", {"x": x, "p": np.bool_(side)})
            harness.assert_same({"y": answer(x)}, have)
        return
    answer = twice if kind == "through another" else once
    have = harness.run_frozen(frozen, "serving_default", {"x": x})
    harness.assert_same({"y": answer(x)}, have)
