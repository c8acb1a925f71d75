"""Small changes of meaning to a graph's message, as a faulty tool would make them."""

from __future__ import annotations

from freezeflow.messages import message_class

MESSAGES = {"saved_model": "SavedModel", "checkpoint": "MetaGraphDef", "frozen_graph": "GraphDef"}

_SUFFIXES = [":0", ":1", ":7", ":x", "::", ":-1", ":99999999999999999999", "\u0663"]
_DTYPES = [0, 1, 3, 7, 9, 20, 21, 99, 101, 120, 1000]
_NUMBERS = [-(2**63), -1, 0, 1, 7, 2**40, 2**62]


def graph_file(source):
    """The file of a source that holds its graph."""
    if source.kind == "saved_model":
        return source.path / "saved_model.pb"
    return source.path.with_name(source.path.name + ".meta" * (source.kind == "checkpoint"))


def edited(source, rng, edits=1):
    """The bytes of the graph's file after some edits."""
    message = message_class(MESSAGES[source.kind]).FromString(graph_file(source).read_bytes())
    graph = message
    if source.kind != "frozen_graph":
        graph = (message.meta_graphs[0] if source.kind == "saved_model" else message).graph_def
    for _ in range(edits):
        edit = rng.choice(_EDITS)
        functions = [f for f in graph.library.function if f.node_def]
        bodies = [graph.node, *(f.node_def for f in functions)]
        edit(rng, rng.choice(bodies), functions)
    return message.SerializeToString()


def _lose_attribute(rng, nodes, functions):
    node = rng.choice(nodes)
    if node.attr:
        del node.attr[rng.choice(sorted(node.attr))]


def _take_attribute(rng, nodes, functions):
    node, other = rng.choice(nodes), rng.choice(nodes)
    if node.attr and other.attr:
        key = rng.choice(sorted(node.attr))
        node.attr[key].CopyFrom(other.attr[rng.choice(sorted(other.attr))])


def _lose_input(rng, nodes, functions):
    node = rng.choice(nodes)
    if node.input:
        del node.input[rng.randrange(len(node.input))]


def _take_input(rng, nodes, functions):
    node, other = rng.choice(nodes), rng.choice(nodes)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice([*other.input, other.name])


def _gain_input(rng, nodes, functions):
    name = rng.choice(nodes).name
    rng.choice(nodes).input.append(rng.choice([name, f"^{name}", f"{name}:1"]))


def _misname_input(rng, nodes, functions):
    node = rng.choice(nodes)
    if node.input:
        node.input[rng.randrange(len(node.input))] += rng.choice(_SUFFIXES)


def _change_op(rng, nodes, functions):
    rng.choice(nodes).op = rng.choice(nodes).op


def _lose_node(rng, nodes, functions):
    del nodes[rng.randrange(len(nodes))]


def _rename_node(rng, nodes, functions):
    rng.choice(nodes).name = rng.choice([rng.choice(nodes).name, "", "^a", "a:b", " ", "\u00e9"])


def _change_value(rng, nodes, functions):
    node = rng.choice(nodes)
    if not node.attr:
        return
    value = node.attr[rng.choice(sorted(node.attr))]
    match value.WhichOneof("value"):
        case "type":
            value.type = rng.choice(_DTYPES)
        case "i":
            value.i = rng.choice(_NUMBERS)
        case "s":
            value.s = rng.choice([b"", b"\xff\xfe", b"x" * 3000])
        case "shape":
            value.shape.dim.add(size=rng.choice([-5, 0, 2**50]))
        case "list" if value.list.type:
            del value.list.type[rng.randrange(len(value.list.type))]
        case "func" if functions:
            value.func.name = rng.choice(functions).signature.name
        case "tensor":
            _change_tensor(rng, value.tensor)


def _change_tensor(rng, tensor):
    kind = rng.randrange(5)
    if kind == 0:
        tensor.dtype = rng.choice([0, 1, 3, 7, 9, 20, 50])
    elif kind == 1:
        tensor.tensor_shape.dim.add(size=rng.choice([-1, 0, 2, 2**40, 2**62]))
    elif kind == 2 and tensor.tensor_shape.dim:
        tensor.tensor_shape.dim[0].size = rng.choice([-1, 0, 2**40])
    elif kind == 3:
        tensor.tensor_content = tensor.tensor_content[:-1]
    elif tensor.string_val:
        del tensor.string_val[0]
    else:
        tensor.tensor_shape.unknown_rank = True


def _lose_argument(rng, nodes, functions):
    if functions:
        signature = rng.choice(functions).signature
        ends = rng.choice([signature.input_arg, signature.output_arg])
        if ends:
            del ends[rng.randrange(len(ends))]


def _rename_function(rng, nodes, functions):
    if functions:
        name = rng.choice([rng.choice(functions).signature.name, "Identity", ""])
        rng.choice(functions).signature.name = name


def _misname_result(rng, nodes, functions):
    if functions:
        function = rng.choice(functions)
        for key in sorted(function.ret)[:1]:
            function.ret[key] = rng.choice(["", function.ret[key] + "x", function.node_def[0].name])


_EDITS = (
    _lose_attribute, _take_attribute, _lose_input, _take_input, _gain_input, _misname_input,
    _change_op, _lose_node, _rename_node, _change_value, _change_value, _lose_argument,
    _rename_function, _misname_result,
)  # fmt: skip
