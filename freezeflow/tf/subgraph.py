"""The smallest part of two graphs that shows a difference, saved with its inputs, and run again.

A part goes from tensors on which both sides agree to one on which they do not. What flows in is fed;
weights that no longer agree stay inside the result's part, and are fed to the original's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from freezeflow.context import SUBGRAPH_FOLDER
from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.graph import attrs, walk
from freezeflow.graph.graph import Graph, Node, data_inputs, node_of, split
from freezeflow.graph.op_policy import check_runs
from freezeflow.graph.read import GraphReader
from freezeflow.graph.write import graph_def_bytes
from freezeflow.messages import message_class
from freezeflow.proof.compare import Tolerance, to_json
from freezeflow.proof.divergence import Divergence
from freezeflow.proof.dtypes import Array
from freezeflow.proof.judge import Measure
from freezeflow.proof.requests import Request, encode_requests, read_requests
from freezeflow.store.files import remove_tree
from freezeflow.tf.looking import Looker, Pair
from freezeflow.tf.sessions import RUN_ERRORS, as_array, exact_config, settings
from freezeflow.tf.sides import full_name
from freezeflow.values import DType, Json

v1 = tf.compat.v1

FORMAT = "freezeflow.subgraph/1"
ABOUT_FILE = "subgraph.json"
VALUES_FILE = "subgraph.tfrecord"
GRAPH_FILES = {"original": "original.pb", "result": "result.pb"}


def save_subgraph(
    found: Divergence,
    original: Graph,
    result: Graph,
    pair: Pair,
    measure: Measure,
    scratch: Path,
) -> bool:
    """Saves the failing part of both graphs in a folder ``subgraph`` of the scratch folder.

    Returns:
        Whether it could be cut out, and shows the difference when it runs alone.
    """
    folder = scratch / SUBGRAPH_FOLDER
    remove_tree(folder)
    folder.mkdir()
    saved = _saved(found, original, result, pair, measure, folder)
    if not saved:
        remove_tree(folder)
    return saved


def _saved(
    found: Divergence,
    original: Graph,
    result: Graph,
    pair: Pair,
    measure: Measure,
    folder: Path,
) -> bool:
    there = _cut_out(original, found.original, found.ends[0], pair.original, feeds_constants=True)
    here = _cut_out(result, found.result, found.ends[1], pair.result, feeds_constants=False)
    if here is None:
        return False
    outputs = {"original": found.ends[0], "result": found.ends[1]}
    if there is None:
        value = pair.original.value(found.ends[0])
        if value is None:
            return False
        there, outputs["original"] = _recorded(value), _RECORDED
    parts = {"original": there, "result": here}
    for name, (graph, _) in parts.items():
        (folder / GRAPH_FILES[name]).write_bytes(graph_def_bytes(graph))
    requests = [Request(name, values, "subgraph") for name, (_, values) in parts.items()]
    (folder / VALUES_FILE).write_bytes(encode_requests(requests))
    about = {
        "format": FORMAT,
        "node": found.node,
        "kind": found.kind,
        "outputs": outputs,
        "exact": measure.exact,
        "tolerance": measure.tolerance._asdict(),
    }
    (folder / ABOUT_FILE).write_text(json.dumps(about, indent=1))
    try:
        return not replay_subgraph(folder)["equal"]
    except FreezeflowError:
        # Alone it does not run: what it reads was written by nodes that are not part of it.
        return False


def replay_subgraph(folder: Path) -> dict[str, Json]:
    """Runs both parts that `save_subgraph` saved, as the exact level runs, and compares their output.

    Returns:
        What was saved about them, with ``equal`` (within the tolerance), ``metrics``, ``settings``.

    Raises:
        StageFailed: Something is missing, or cannot be run.
        ModelRefused: A part holds ops that are not known to be harmless.
    """
    try:
        about = json.loads((folder / ABOUT_FILE).read_text())
    except (OSError, ValueError):
        about = {}
    if about.get("format") != FORMAT:
        raise StageFailed("holds no failing part of a graph", where=str(folder))
    values = {request.signature: request.inputs for request in read_requests(folder / VALUES_FILE)}
    answers = {
        name: _run(folder / file, values.get(name, {}), about["outputs"][name])
        for name, file in GRAPH_FILES.items()
    }
    measure = Measure(about["exact"], Tolerance(**about["tolerance"]))
    comparison = measure.compare(answers["original"], answers["result"])
    return {
        **about,
        "equal": measure.passes(comparison),
        "metrics": to_json(comparison.metrics),
        "settings": settings(exact=True),
    }


def _run(path: Path, inputs: Mapping[str, Array], output: str) -> Array:
    data = path.read_bytes()
    graph = GraphReader(message_class("GraphDef").FromString(data)).graph()
    check_runs(graph)
    tf_graph = tf.Graph()
    with tf_graph.as_default():
        tf.graph_util.import_graph_def(v1.GraphDef.FromString(data), name="")
    with v1.Session(graph=tf_graph, config=exact_config()) as session:
        feeds = {f"{name}:0": value for name, value in inputs.items()}
        try:
            return as_array(session.run(full_name(output), feeds))
        except RUN_ERRORS as error:
            raise StageFailed(str(error).partition("\n")[0], where=str(path)) from None


def _cut_out(
    graph: Graph,
    region: frozenset[str],
    end: str,
    values: Looker,
    *,
    feeds_constants: bool,
) -> tuple[Graph, dict[str, Array]] | None:
    """A part of a graph and what is fed into it, by the names of its placeholders; None where a value
    that it needs cannot be had.

    Args:
        graph: The graph.
        region: Tensors that do not agree.
        end: The tensor that the part gives.
        values: Gives the values at its border.
        feeds_constants: Feed also what depends on no input (the original's variables).
    """
    nodes: dict[str, Node] = {}
    fed: dict[str, str] = {}
    given: dict[str, Array] = {}
    stack = [end]
    while stack:
        node = values.nodes[node_of(stack.pop())]
        if node.name in nodes:
            continue
        inputs = []
        for tensor in data_inputs(node):
            inside = tensor in region and not (feeds_constants and _is_source(values, tensor))
            if not inside and tensor not in fed:
                value = values.value(tensor) if _can_be_fed(values, tensor) else None
                if value is None or value.dtype.names == _HANDLE:
                    inside = True
                else:
                    fed[tensor] = "/fed_".join(map(str, split(tensor)))
                    given[fed[tensor]] = value
            if inside:
                stack.append(tensor)
            inputs.append(fed.get(tensor, tensor))
        if node.op in _OF_ROUNDS or (not inputs and node.op in _UNFED):
            return None
        nodes[node.name] = _alone(node, tuple(inputs))
    for name, value in given.items():
        nodes[name] = _placeholder(name, value)
    if walk.find_cycle(nodes):
        # It goes round in a loop: what the round before gave does not agree, and cannot be fed.
        return None
    part = walk.without_unused(
        Graph(
            nodes={name: nodes[name] for name in walk.topological_order(nodes)},
            functions=graph.functions,
            producer=graph.producer,
            min_consumer=graph.min_consumer,
            op_defs=graph.op_defs,
        )
    )
    return part, given


# What stands for a part of the original that cannot be cut out: variables flow into its functions.
_RECORDED = "recorded"


def _recorded(value: Array) -> tuple[Graph, dict[str, Array]]:
    """A part that gives what the original gave."""
    return Graph(nodes={_RECORDED: _placeholder(_RECORDED, value)}), {_RECORDED: value}


# Without what was in front of them these mean nothing.
_INPUTS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
_VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_UNFED = _INPUTS | _VARIABLES

# What a part of one round has no use for: it would need the other rounds.
_OF_ROUNDS = frozenset({"Exit", "LoopCond", "RefEnter", "RefExit", "RefNextIteration"})

# The dtype in which a session gives a resource handle, which cannot be fed.
_HANDLE = ("resource",)


def _is_source(values: Looker, tensor: str) -> bool:
    """Whether a tensor is read from a variable, is a constant, or is fed."""
    node = values.nodes[node_of(tensor)]
    return node.op in _INPUTS | {"Const"} or any(
        values.nodes[node_of(t)].op in _UNFED for t in data_inputs(node)
    )


def _can_be_fed(values: Looker, tensor: str) -> bool:
    return values.nodes[node_of(tensor)].op not in _VARIABLES


def _alone(node: Node, inputs: tuple[str, ...]) -> Node:
    """A node of a part; what carries a tensor into a loop or a round carries it all the same."""
    plain = {key: value for key, value in node.attrs.items() if not key.startswith("_")}
    if node.op in ("Enter", "NextIteration"):
        return Node(node.name, "Identity", inputs, {"T": plain["T"]})
    return node._replace(inputs=inputs, device="", attrs=plain)


def _placeholder(name: str, value: Array) -> Node:
    dtype = DType(tf.as_dtype(value.dtype).as_datatype_enum)
    if value.dtype.kind == "O":
        dtype = DType.STRING
    return Node(
        name,
        "Placeholder",
        (),
        {"dtype": attrs.of_type(dtype), "shape": attrs.of_shape(value.shape)},
    )
