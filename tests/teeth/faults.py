"""Faults that are put into frozen models, each with the names of the nodes that may be blamed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.frames import frames_of
from freezeflow.graph.graph import Node, data_inputs, node_of
from freezeflow.graph.model import Model
from freezeflow.graph.walk import consumers
from freezeflow.graph.write import read_range
from freezeflow.messages import message_class
from freezeflow.values import DType, Signature


@dataclasses.dataclass
class Faulty:
    """A model with a fault.

    Args:
        model: The model.
        blamed: Nodes of which any may be named.
    """

    model: Model
    blamed: set[str]


Fault = Callable[[Model, np.random.Generator], Iterator[Faulty]]
FAULTS: dict[str, Fault] = {}


def fault(make: Fault) -> Fault:
    FAULTS[make.__name__] = make
    return make


# ---------------------------------------------------------------- reading and changing


def with_nodes(model, *nodes):
    graph = model.graph
    changed = {**graph.nodes, **{node.name: node for node in nodes}}
    return dataclasses.replace(model, graph=dataclasses.replace(graph, nodes=changed))


def without_dead(model):
    """As a rewrite would leave it: what nobody needs is gone."""
    from freezeflow.graph import walk
    from freezeflow.sources.signatures import ends_of

    ends = [*ends_of(model.signatures), *model.init]
    return dataclasses.replace(model, graph=walk.prune(model.graph, ends))


def value_of(node):
    if node.tensor is not None:
        data = read_range(node.tensor.location)
        return np.frombuffer(data, np.float32).reshape(node.tensor.shape).copy()
    tensor = attrs.message(node.attrs["value"]).tensor
    import tensorflow as tf

    return tf.make_ndarray(tf.make_tensor_proto(0).FromString(tensor.SerializeToString())).copy()


def constants(model, *, dims, size=2):
    """Float constants of a number of dimensions, in order of their names."""
    for _, node in sorted(model.graph.nodes.items()):
        if node.op == "Const" and attrs.to_type(node.attrs["dtype"]) is DType.FLOAT:
            array = value_of(node)
            if array.ndim == dims and array.size >= size:
                yield node, array


def with_value(model, node, array):
    data = np.ascontiguousarray(array).tobytes()
    dtype = attrs.to_type(node.attrs["dtype"])
    return with_nodes(model, const(node.name, dtype, np.shape(array), data))


def of_op(model, *ops):
    return [node for name, node in sorted(model.graph.nodes.items()) if node.op in ops]


def moving(model):
    """Nodes that depend on an input."""
    found = {node_of(s.tensor) for sig in model.signatures.values() for s in sig.inputs.values()}
    grows = True
    while grows:
        more = {
            name
            for name, node in model.graph.nodes.items()
            if name not in found and any(node_of(t) in found for t in data_inputs(node))
        }
        found |= more
        grows = bool(more)
    return found


def change_weight(model, generator, change, *, dims=(2, 4, 1)):
    """One faulty model for a weight of each rank."""
    for rank in dims:
        for node, array in list(constants(model, dims=rank))[:1]:
            changed = change(array.copy(), generator)
            if changed is not None and changed.tobytes() != array.tobytes():
                yield Faulty(with_value(model, node, changed), {node.name})


def bypassed(model, node):
    """The model in which the takers of a node take its first input."""
    (source, *_) = data_inputs(node)
    return without_dead(redirected(model, node.name, source, keep=node.name))


def redirected(model, name, source, *, keep):
    """The model in which who takes a tensor takes another one, but for one node."""
    nodes = {
        other: n
        if other == keep
        else n._replace(inputs=tuple(source if t == name else t for t in n.inputs))
        for other, n in model.graph.nodes.items()
    }
    signatures = {
        key: Signature(
            sig.inputs,
            {
                k: dataclasses.replace(s, tensor=source) if s.tensor == name else s
                for k, s in sig.outputs.items()
            },
        )
        for key, sig in model.signatures.items()
    }
    graph = dataclasses.replace(model.graph, nodes=nodes)
    return dataclasses.replace(model, graph=graph, signatures=signatures)


def inserted(model, after, *nodes):
    """The model with a chain of nodes behind another one; the last gives what is taken."""
    model = redirected(model, after, nodes[-1].name, keep="")
    return with_nodes(model, *nodes)


def attribute(node, key, **value):
    message = message_class("AttrValue")(**value)
    return node._replace(attrs={**node.attrs, key: attrs.encode(message)})


# ---------------------------------------------------------------- weights


@fault
def flipped_weight_bit(model, generator):
    def change(array, generator):
        bits = array.view(np.uint32).reshape(-1)
        bits[generator.integers(bits.size)] ^= 1 << 20
        return array

    yield from change_weight(model, generator, change)


@fault
def one_ulp_more_everywhere(model, generator):
    def change(array, generator):
        return np.nextafter(array, np.float32(np.inf))

    yield from change_weight(model, generator, change)


@fault
def a_weight_set_to_zero(model, generator):
    def change(array, generator):
        array.reshape(-1)[generator.integers(array.size)] = 0
        return array

    yield from change_weight(model, generator, change)


@fault
def two_rows_swapped(model, generator):
    yield from change_weight(model, generator, lambda a, _: a[[1, 0, *range(2, len(a))]])


@fault
def a_transposed_kernel(model, generator):
    def change(array, generator):
        square = array.shape[-1] == array.shape[-2]
        return np.swapaxes(array, -1, -2) if square else None

    yield from change_weight(model, generator, change, dims=(2,))


@fault
def weights_rounded_to_half(model, generator):
    yield from change_weight(model, generator, lambda a, _: a.astype(np.float16).astype(np.float32))


@fault
def weights_rounded_to_bytes(model, generator):
    def change(array, generator):
        step = np.abs(array).max() / 127
        return (np.rint(array / step) * step).astype(np.float32)

    yield from change_weight(model, generator, change)


@fault
def a_sign_turned(model, generator):
    yield from change_weight(model, generator, lambda array, _: -array)


@fault
def two_weights_exchanged(model, generator):
    for rank in (1, 2):
        found = list(constants(model, dims=rank, size=4))
        for one, array in found:
            for other, same in found:
                if one.name < other.name and array.shape == same.shape:
                    swapped = with_value(with_value(model, one, same), other, array)
                    yield Faulty(swapped, {one.name, other.name})
                    return


@fault
def a_layer_of_a_wrong_checkpoint(model, generator):
    def change(array, generator):
        return generator.standard_normal(array.shape).astype(np.float32)

    yield from change_weight(model, generator, change, dims=(2,))


@fault
def a_wrong_checkpoint(model, generator):
    blamed = set()
    for rank in (1, 2, 4):
        for node, array in list(constants(model, dims=rank, size=4)):
            model = with_value(model, node, array * np.float32(1.25) + np.float32(0.1))
            blamed.add(node.name)
    yield Faulty(model, blamed)


# ---------------------------------------------------------------- nodes taken out or put in


@fault
def a_dropped_bias(model, generator):
    for node in of_op(model, "BiasAdd", "AddV2", "Add")[:2]:
        _, second = data_inputs(node)
        if node_of(second) not in moving(model):
            yield Faulty(bypassed(model, node), {node.name})


@fault
def a_counter_that_stands_still(model, generator):
    """The loop does not come to an end. The node is gone; what took its value takes another one."""
    frames = frames_of(model.graph.nodes)
    for node in of_op(model, "AddV2", "Add"):
        is_counter = attrs.to_type(node.attrs["T"]) is DType.INT32 and node.name in frames
        if is_counter:
            takers = consumers(model.graph.nodes)[node.name]
            yield Faulty(bypassed(model, node), {node.name, *takers})


@fault
def a_dropped_activation(model, generator):
    ops = "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "Softplus"
    for node in of_op(model, *ops)[:2]:
        yield Faulty(bypassed(model, node), {node.name})


@fault
def a_cast_too_many(model, generator):
    for node in of_op(model, "MatMul", "BatchMatMulV2", "Conv2D")[:2]:
        down = Node("fault/down", "Cast", (node.name,), _casts(DType.FLOAT, DType.HALF))
        up = Node("fault/up", "Cast", ("fault/down",), _casts(DType.HALF, DType.FLOAT))
        yield Faulty(
            with_nodes(redirected(model, node.name, "fault/up", keep=""), down, up),
            {"fault/down", "fault/up"},
        )


def _casts(source, target):
    return {
        "SrcT": attrs.of_type(source),
        "DstT": attrs.of_type(target),
        "Truncate": attrs.of_bool(False),
    }


@fault
def one_ulp_more_on_the_way(model, generator):
    # A constant of the main graph cannot be taken in a loop.
    frames = frames_of(model.graph.nodes)
    products = of_op(model, "MatMul", "BatchMatMulV2", "Conv2D")
    for node in [node for node in products if node.name not in frames][-1:]:
        factor = np.float32(1 + 2**-23)
        more = const("fault/factor", DType.FLOAT, (), factor.tobytes())
        times = Node(
            "fault/times", "Mul", (node.name, "fault/factor"), {"T": attrs.of_type(DType.FLOAT)}
        )
        yield Faulty(inserted(model, node.name, more, times), {"fault/times"})


@fault
def an_activation_too_many(model, generator):
    for node in of_op(model, "MatMul", "BatchMatMulV2", "BiasAdd")[:1]:
        relu = Node("fault/relu", "Relu", (node.name,), {"T": attrs.of_type(DType.FLOAT)})
        yield Faulty(inserted(model, node.name, relu), {"fault/relu"})


# ---------------------------------------------------------------- other connections


@fault
def swapped_outputs(model, generator):
    for name, signature in model.signatures.items():
        keys = list(signature.outputs)
        for one in keys:
            for other in keys:
                left, right = signature.outputs[one], signature.outputs[other]
                if one < other and left.dtype == right.dtype and left.shape == right.shape:
                    outputs = {**signature.outputs, one: right, other: left}
                    changed = Signature(signature.inputs, outputs)
                    yield Faulty(
                        dataclasses.replace(model, signatures={name: changed}),
                        {
                            node_of(left.tensor),
                            node_of(right.tensor),
                            *_sources(model, left.tensor, right.tensor),
                        },
                    )
                    return


def _sources(model, *tensors):
    """The nodes whose values some tensors hand on."""
    for tensor in tensors:
        node = model.graph.nodes[node_of(tensor)]
        while node.op == "Identity":
            node = model.graph.nodes[node_of(node.inputs[0])]
        yield node.name


@fault
def swapped_inputs(model, generator):
    for node in of_op(model, "Sub", "RealDiv", "Greater", "BatchMatMulV2")[:3]:
        first, second = data_inputs(node)
        changed = node._replace(inputs=(second, first))
        yield Faulty(with_nodes(model, changed), {node.name})


@fault
def another_tensor_of_the_same_shape(model, generator):
    """A node takes what its own input was made from: an edge that skips a node."""
    depends = moving(model)
    for node in of_op(model, "Mul", "Sub", "Maximum", "ConcatV2", "SelectV2"):
        for number, tensor in enumerate(node.inputs):
            before = model.graph.nodes.get(node_of(tensor))
            if before is None or before.op not in ("Relu", "Tanh", "Elu", "Softplus", "LeakyRelu"):
                continue
            skipped = before.inputs[0]
            if node_of(skipped) in depends:
                inputs = (*node.inputs[:number], skipped, *node.inputs[number + 1 :])
                changed = without_dead(with_nodes(model, node._replace(inputs=inputs)))
                yield Faulty(changed, {node.name, before.name})
                return


# ---------------------------------------------------------------- other ops and attributes


@fault
def another_op(model, generator):
    others = {
        "Relu": "Relu6", "Tanh": "Sigmoid", "Elu": "Selu", "Sub": "AddV2", "Maximum": "Minimum",
        "Mean": "Max", "Max": "Min", "Softmax": "LogSoftmax", "Sum": "Prod", "Softplus": "Softsign",
    }  # fmt: skip
    for node in of_op(model, *others)[:3]:
        yield Faulty(with_nodes(model, node._replace(op=others[node.op])), {node.name})


@fault
def a_transposing_product(model, generator):
    for node in of_op(model, "MatMul"):
        weight = model.graph.nodes[next(_sources(model, node.inputs[1]))]
        if weight.op == "Const" and value_of(weight).shape[0] == value_of(weight).shape[1]:
            changed = attribute(node, "transpose_b", b=True)
            yield Faulty(with_nodes(model, changed), {node.name})
            return


@fault
def batch_norm_in_training_mode(model, generator):
    for node in of_op(model, "FusedBatchNormV3"):
        yield Faulty(with_nodes(model, attribute(node, "is_training", b=True)), {node.name})


@fault
def another_epsilon(model, generator):
    for node in of_op(model, "FusedBatchNormV3"):
        yield Faulty(with_nodes(model, attribute(node, "epsilon", f=1.1e-3)), {node.name})


@fault
def batch_norm_statistics_exchanged(model, generator):
    for node in of_op(model, "FusedBatchNormV3"):
        x, scale, offset, mean, variance = data_inputs(node)
        inputs = (x, offset, scale, mean, variance)
        yield Faulty(with_nodes(model, node._replace(inputs=inputs)), {node.name})


@fault
def another_padding(model, generator):
    for node in of_op(model, "Conv2D", "MaxPool", "DepthwiseConv2dNative"):
        yield Faulty(with_nodes(model, attribute(node, "padding", s=b"VALID")), {node.name})
        return


@fault
def another_window(model, generator):
    for node in of_op(model, "MaxPool"):
        kept = {k: v for k, v in node.attrs.items() if k != "explicit_paddings"}
        changed = node._replace(op="AvgPool", attrs={**kept, "T": attrs.of_type(DType.FLOAT)})
        yield Faulty(with_nodes(model, changed), {node.name})


@fault
def another_slope(model, generator):
    for node in of_op(model, "LeakyRelu"):
        yield Faulty(with_nodes(model, attribute(node, "alpha", f=0.2)), {node.name})


@fault
def another_axis(model, generator):
    """The order of a transposition, the axis of a reduction: integers among the constants."""
    for node in of_op(model, "Transpose", "Max", "Sum", "Mean"):
        axes = model.graph.nodes[node_of(node.inputs[1])]
        if axes.op != "Const":
            continue
        array = value_of(axes)
        changed = array[::-1] if array.size > 1 else array - 1
        if node.op == "Transpose":
            continue
        yield Faulty(with_value(model, axes, changed), {axes.name, node.name})
        return


@fault
def another_scalar(model, generator):
    for node, array in list(constants(model, dims=0, size=1))[:2]:
        yield Faulty(with_value(model, node, array * np.float32(1.5)), {node.name})


# ---------------------------------------------------------------- inside functions


@fault
def another_body(model, generator):
    """In the first function that has such a node: another op, or a constant with another value."""
    others = {"Tanh": "Sigmoid", "Mul": "Sub", "Sub": "AddV2"}
    for name, function in sorted(model.graph.functions.items()):
        for node in function.nodes.values():
            if node.op in others:
                nodes = {**function.nodes, node.name: node._replace(op=others[node.op])}
                yield _with_body(model, name, nodes, node.name)
                break


@fault
def branches_exchanged(model, generator):
    for node in of_op(model, "If", "StatelessIf"):
        exchanged = {
            **node.attrs,
            "then_branch": node.attrs["else_branch"],
            "else_branch": node.attrs["then_branch"],
        }
        yield Faulty(with_nodes(model, node._replace(attrs=exchanged)), {node.name})


def _with_body(model, name, nodes, blamed):
    function = dataclasses.replace(model.graph.functions[name], nodes=nodes)
    functions = {**model.graph.functions, name: function}
    graph = dataclasses.replace(model.graph, functions=functions)
    return Faulty(dataclasses.replace(model, graph=graph), {blamed})


# How nodes of bodies are called where branches and loops are lowered.
_IN_BODY = re.compile("(.*?)/(?:then|else|cond|body)/(.*)")


def nodes_named(divergence: dict[str, Any]) -> set[str]:
    """Every name by which a verdict says where the difference is."""
    named = {divergence["node"]}
    if match := _IN_BODY.fullmatch(divergence["node"]):
        # A node in a branch or a loop: the node that has it, and what the body calls it.
        named |= set(match.groups())
    if divergence["inside"]:
        path = divergence["inside"].partition(" (")[0].split("/")
        named |= {"/".join(path[start:]) for start in range(len(path))}
    return named
