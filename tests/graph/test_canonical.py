import dataclasses
import os
import random
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from freezeflow.graph import attrs, verify
from freezeflow.graph.canonical import canonical
from freezeflow.graph.graph import Node
from freezeflow.graph.ops import standard_op
from freezeflow.graph.storage import encode_model
from freezeflow.messages import message_class
from freezeflow.values import DType, Signature
from tests.graphs import attr, call, const, function, graph, model, node, placeholder, spec

F = DType.FLOAT


def strings(*values):
    value = message_class("AttrValue")()
    value.list.s.extend(values)
    return attrs.encode(value)


def noisy():
    """A model with much that carries no meaning."""
    inner = function(
        "__inference_inner_12", {"a": F}, {"r": ("b", F)},
        node("b", "Relu", "a", T=F, _output_shapes=attrs.of_shapes([None])),
        _construction_context="kEagerRuntime",
        _noinline=True,
    )  # fmt: skip
    outer = function(
        "__inference_outer_7_34", {"a": F}, {"r": ("c", F)},
        call("c", "__inference_inner_12", ["a"], [F], [F]),
        forward_function_name="__forward_outer_99",
    )  # fmt: skip
    other = function("__forward_inner_5", {"a": F}, {"r": ("a", F)})
    unused = function("__inference_unused_3", {"a": F}, {"r": ("a", F)})
    settings = {
        "config_proto": "\x07machine",
        "executor_type": "",
        "_gradient_op_type": "PartitionedCall-77",
        "_collective_manager_ids": (),
        "_read_only_resource_inputs": attrs.of_ints([]),
    }
    first = call("b_call", "__inference_outer_7_34", ["x"], [F], [F])
    nodes = [
        call("c_call", "__forward_inner_5", ["b_call"], [F], [F]),
        first._replace(attrs={**first.attrs, **{k: attr(v) for k, v in settings.items()}}),
        placeholder("x", F, (None,)),
        node(
            "y", "AddV2", "c_call", "k", "^z_wait", "^a_wait", T=F, device="/device:GPU:0",
            _class=strings(b"loc:@gone", b"loc:@x"),
        ),
        node("a_wait", "NoOp", _class=strings(b"loc:@gone"), experimental_x=True),
        node("z_wait", "NoOp"),
        const("k", 1.0),
    ]  # fmt: skip
    made = graph(*nodes, functions=[outer, inner, other, unused])
    result = model(made, {"x": spec("x", F, (None,))}, {"y": spec("y", F, (None,))})
    two = Signature({"b": spec("x", F), "a": spec("x", F)}, {"z": spec("y"), "y": spec("y")})
    return dataclasses.replace(result, signatures={**result.signatures, "another": two})


def shuffled(made, seed):
    """The same model with every mapping in another order."""
    chance = random.Random(seed)

    def mix(mapping):
        items = list(mapping.items())
        chance.shuffle(items)
        return dict(items)

    def nodes(mapping):
        return {k: n._replace(attrs=mix(n.attrs)) for k, n in mix(mapping).items()}

    functions = {
        k: dataclasses.replace(f, nodes=nodes(f.nodes), attrs=mix(f.attrs))
        for k, f in mix(made.graph.functions).items()
    }
    signatures = {
        k: Signature(mix(s.inputs), mix(s.outputs)) for k, s in mix(made.signatures).items()
    }
    mixed = dataclasses.replace(made.graph, nodes=nodes(made.graph.nodes), functions=functions)
    return dataclasses.replace(made, graph=mixed, signatures=signatures)


def test_what_carries_no_meaning_goes():
    result = canonical(noisy())
    nodes = result.graph.nodes
    assert list(nodes) == ["a_wait", "k", "x", "b_call", "c_call", "z_wait", "y"]
    assert sorted(nodes["b_call"].attrs) == ["Tin", "Tout", "f"]
    assert nodes["y"].device == ""
    assert nodes["y"].inputs == ("c_call", "k", "^a_wait", "^z_wait")
    assert list(attrs.message(nodes["y"].attrs["_class"]).list.s) == [b"loc:@x"]
    assert nodes["a_wait"].attrs == {}
    assert list(result.signatures) == ["another", "serving_default"]
    assert list(result.signatures["another"].inputs) == ["a", "b"]


def test_functions_get_short_names_in_the_order_of_reference():
    functions = canonical(noisy()).graph.functions
    assert list(functions) == ["inner", "inner_1", "outer"]
    # The main graph names __forward_inner_5 before a body names __inference_inner_12.
    assert functions["inner"].nodes == {}
    assert functions["inner_1"].attrs == {"_noinline": attr(True)}
    assert "_output_shapes" not in functions["inner_1"].nodes["b"].attrs
    assert functions["outer"].attrs == {}
    assert attrs.to_function(functions["outer"].nodes["c"].attrs["f"])[0] == "inner_1"
    assert verify.verify(canonical(noisy())) == ()


def test_canonical_of_canonical_changes_nothing():
    once = canonical(noisy())
    assert canonical(once) == once
    assert encode_model(canonical(once)) == encode_model(once)


@given(st.integers(0, 2**32))
def test_the_order_of_mappings_does_not_matter(seed):
    assert encode_model(canonical(shuffled(noisy(), seed))) == encode_model(canonical(noisy()))


def renamed(made, table):
    """The model with its functions under other names, as another run of TensorFlow gives them."""

    def node_with(n):
        values = dict(n.attrs)
        if "f" in values:
            name, bindings = attrs.to_function(values["f"])
            values["f"] = attrs.of_function(table[name], bindings)
        return n._replace(attrs=values)

    functions = {
        table[name]: dataclasses.replace(
            f, name=table[name], nodes={k: node_with(n) for k, n in f.nodes.items()}
        )
        for name, f in made.graph.functions.items()
    }
    nodes = {k: node_with(n) for k, n in made.graph.nodes.items()}
    return dataclasses.replace(
        made, graph=dataclasses.replace(made.graph, nodes=nodes, functions=functions)
    )


def test_uids_of_functions_do_not_matter():
    table = {
        "__inference_inner_12": "__inference_inner_9001",
        "__inference_outer_7_34": "__forward_outer_2",
        "__forward_inner_5": "__inference_inner_77",
        "__inference_unused_3": "__inference_unused_4",
    }
    other = renamed(noisy(), table)
    assert encode_model(canonical(other)) == encode_model(canonical(noisy()))


def one_function(name, op_defs=None):
    made = graph(
        placeholder("x"),
        call("y", name, ["x"], [F], [F]),
        functions=[function(name, {"a": F}, {"r": ("a", F)})],
    )
    made = dataclasses.replace(made, op_defs=op_defs or {})
    return list(canonical(model(made)).graph.functions)


def test_a_function_never_takes_an_ops_name():
    assert one_function("__inference_Add_12") == ["Add_function"]
    assert one_function("__inference_12") == ["function"]
    assert one_function("Add_function") == ["Add_function"]
    assert one_function("while_body_12_rewritten") == ["while_body"]


def test_functions_called_as_ops_are_renamed_too():
    custom = standard_op("Relu")._replace(name="Mine")
    inner = function("Mine_3", {"a": F}, {"r": ("a", F)})
    made = graph(
        placeholder("x"), node("y", "Mine_3", "x"), node("z", "Mine", "y", T=F), functions=[inner]
    )
    made = dataclasses.replace(made, op_defs={"Mine": custom})
    result = canonical(model(made)).graph
    assert list(result.functions) == ["Mine_function"]
    assert result.nodes["y"].op == "Mine_function"
    assert result.nodes["z"].op == "Mine"


def test_functions_in_bindings_are_renamed():
    inner = function("__inference_g_1", {"a": F}, {"r": ("a", F)})
    outer = function("__inference_f_2", {"a": F}, {"r": ("a", F)})
    bindings = {"g": attrs.of_function("__inference_g_1"), "T": attr(F)}
    made = graph(
        placeholder("x"),
        node("y", "PartitionedCall", "x", f=attrs.of_function("__inference_f_2", bindings),
             Tin=(F,), Tout=(F,)),
        functions=[inner, outer],
    )  # fmt: skip
    result = canonical(model(made)).graph
    name, bound = attrs.to_function(result.nodes["y"].attrs["f"])
    assert name == "f"
    assert bound == {"g": attrs.of_function("g"), "T": attr(F)}
    assert sorted(result.functions) == ["f", "g"]


def test_options():
    made = noisy()
    assert canonical(made, keep_devices=True).graph.nodes["y"].device == "/device:GPU:0"
    values = {"T": F, "transpose_a": False, "transpose_b": True}
    made = model(graph(placeholder("x"), node("y", "MatMul", "x", "x", **values)))
    assert sorted(canonical(made).graph.nodes["y"].attrs) == ["T", "transpose_a", "transpose_b"]
    slim = canonical(made, drop_defaults=True).graph.nodes["y"].attrs
    assert sorted(slim) == ["T", "transpose_b"]


def test_what_means_something_stays():
    handle = node("v", "VarHandleOp", dtype=F, shape=attrs.of_shape(()), debug_name="v")
    read = node(
        "y", "StatefulPartitionedCall", "v",
        f=attrs.of_function("g"), Tin=(DType.RESOURCE,), Tout=(F,),
        _read_only_resource_inputs=attrs.of_ints([0]), _xla_compile=True,
    )  # fmt: skip
    inner = function(
        "g", {"a": DType.RESOURCE}, {"r": ("b", F)}, node("b", "ReadVariableOp", "a", dtype=F)
    )
    arg = inner.args[0]._replace(
        attrs={"_resource_arg_unique_id": attr(3), "_user_specified_name": attr("q")}
    )
    inner = dataclasses.replace(inner, args=(arg,))
    grad = node("z", "IdentityN", "y", T=(F,), _gradient_op_type="CustomGradient-3")
    unknown = node("u", "Unknown", "z", experimental_mode=3)
    result = canonical(
        model(
            graph(handle, read, grad, unknown, functions=[inner]), variables={"v": const("v", 1.0)}
        )
    )
    assert sorted(result.graph.nodes["y"].attrs) == [
        "Tin", "Tout", "_read_only_resource_inputs", "_xla_compile", "f",
    ]  # fmt: skip
    assert sorted(result.graph.nodes["v"].attrs) == ["dtype", "shape"]
    assert "_gradient_op_type" in result.graph.nodes["z"].attrs
    assert "experimental_mode" in result.graph.nodes["u"].attrs
    assert list(result.graph.functions["g"].args[0].attrs) == ["_resource_arg_unique_id"]
    assert result.variables["v"].attrs == const("v", 1.0).attrs


def test_hash_seeds_do_not_matter():
    program = (
        "from tests.graph.test_canonical import noisy, shuffled;"
        "from freezeflow.graph.canonical import canonical;"
        "from freezeflow.graph.storage import encode_model;"
        "import hashlib;"
        "made = repr(encode_model(canonical(shuffled(noisy(), 5))));"
        "print(hashlib.sha256(made.encode()).hexdigest())"
    )
    seen = set()
    for seed in ("0", "1", "4711"):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        )
        seen.add(run.stdout)
    assert len(seen) == 1


def test_a_large_graph_takes_linear_time():
    nodes = [
        Node(f"n{i}", "Relu", (f"n{i - 1}",) if i else (), {"T": attr(F)}) for i in range(20_000)
    ]
    assert list(canonical(model(graph(*reversed(nodes)))).graph.nodes) == [n.name for n in nodes]
