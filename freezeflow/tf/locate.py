"""Finds the node at which a result begins to differ from its original, and saves it with its inputs.

Both sides run the failing call once more as the exact level runs, and every tensor on the way to the
output is looked at. Both run with their calls inlined, and their branches and loops lowered, by
freezeflow, so that what happens in functions can be looked at, too; that this changes nothing is checked
first.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as Folder
from typing import NamedTuple

from freezeflow.errors import FreezeflowError
from freezeflow.graph.frames import Path
from freezeflow.graph.graph import Graph, node_of
from freezeflow.graph.inline import inline_calls, inline_model
from freezeflow.graph.lower import lower
from freezeflow.graph.model import Model, Scalar
from freezeflow.graph.original import Original
from freezeflow.graph.write import graph_def_pieces, materialise
from freezeflow.proof.calls import Call
from freezeflow.proof.divergence import (
    IN_WORDS,
    Divergence,
    find_divergence,
    through_identities,
)
from freezeflow.proof.inside import difference_inside
from freezeflow.proof.judge import Answers, Measure, failing_outputs, first_failure, first_late
from freezeflow.proof.rounds import first_rounds, with_clocks
from freezeflow.tf.looking import Looker, Pair
from freezeflow.tf.sides import Side, original_side, result_side
from freezeflow.tf.subgraph import save_subgraph
from freezeflow.values import Json, Signature

# Further entries that are named.
_NAMED = 20


def locate(
    original: Original,
    model: Model,
    calls: Sequence[Call],
    answers: Answers,
    measure: Measure,
    scratch: Folder,
) -> dict[str, Json] | None:
    """Where the first difference between original and result arises.

    Args:
        original: The original.
        model: The result.
        calls: All calls.
        answers: What both answered.
        measure: What counts as equal.
        scratch: Gets the failing part of both graphs with its inputs (`save_subgraph`).

    Returns:
        ``call`` and ``output`` (which failed), ``node``, ``op``, ``kind``, ``says`` (the kind in words),
        ``counterpart`` (its node in the other graph), ``round`` (of the loops that it is in, from 0 on, the
        outermost first; null outside of loops), ``inside`` (the node in a function's body),
        ``others`` (further differences), ``because`` (of an ``unseen`` node: why it could not be looked
        at), ``subgraph`` (whether the failing part could be saved); or
        ``reason`` alone where the difference cannot be found. None where no call gave outputs that
        differ, or did not come to an end.
    """
    index, late = first_failure(calls, answers, measure), first_late(answers)
    if index is None:
        index = late
    if index is None:
        return None
    signature = calls[index].signature
    if index == late:
        key = next(iter(model.signatures[signature].outputs))
    else:
        key = failing_outputs(index, signature, answers, measure)[0]
    about: dict[str, Json] = {
        "call": f"{calls[index].kind}: {calls[index].origin}",
        "signature": signature,
        "output": key,
    }
    try:
        requests = [(call.signature, call.inputs) for call in calls[: index + 1]]
        found = _located(
            _flat_original(original, model.bound, scratch),
            _flat_result(model, scratch),
            requests,
            key,
            measure,
            scratch,
            finishes=index != late,
        )
    except FreezeflowError as error:
        return {**about, "reason": error.message}
    return {**about, **found}


class _Flat(NamedTuple):
    """A side whose every node is in the main graph: calls inlined, branches and loops lowered.

    Args:
        graph: Its graph.
        clocks: What counts the rounds of its loops.
        side: The same in TensorFlow.
    """

    graph: Graph
    clocks: Mapping[Path, Sequence[str]]
    side: Side


def _flat_original(original: Original, bound: Mapping[str, Scalar], scratch: Folder) -> _Flat:
    graph = original.graph
    ends = [
        spec.tensor
        for signature in original.signatures.values()
        for spec in (*signature.inputs.values(), *signature.outputs.values())
    ]
    wanted = [*ends, *original.assets, *filter(None, [original.filename_tensor])]
    targets = [*original.init, *filter(None, [original.restore_op])]
    inlined = inline_calls(graph, wanted, targets)
    flat, clocks = with_clocks(lower(inlined.graph))
    file = scratch / "inlined.pb"
    file.write_bytes(materialise(graph_def_pieces(flat)))
    signatures = {
        name: Signature(
            signature.inputs,
            {
                key: dataclasses.replace(spec, tensor=inlined.tensors[spec.tensor])
                for key, spec in signature.outputs.items()
            },
        )
        for name, signature in original.signatures.items()
    }
    flat_original = dataclasses.replace(
        original, file=file, message="GraphDef", graph=flat, signatures=signatures
    )
    side = original_side(flat_original, bound, exact=True, mapped=scratch)
    return _Flat(flat, clocks, side)


def _flat_result(model: Model, scratch: Folder) -> _Flat:
    inlined = inline_model(model)
    graph, clocks = with_clocks(lower(inlined.graph))
    flat = dataclasses.replace(inlined, graph=graph)
    return _Flat(graph, clocks, result_side(flat, scratch, exact=True, mapped=scratch))


def _looker(
    flat: _Flat, requests: list[tuple[str, Json]], key: str, *, finishes: bool = True
) -> Looker:
    output = flat.side.signatures[requests[-1][0]].outputs[key].tensor
    output = through_identities(flat.graph.nodes, output)
    return Looker(flat.side, flat.graph, flat.clocks, requests, output, finishes=finishes)


def _located(
    original: _Flat,
    result: _Flat,
    requests: list[tuple[str, Json]],
    key: str,
    measure: Measure,
    scratch: Folder,
    *,
    finishes: bool,
) -> dict[str, Json]:
    pair = Pair(_looker(original, requests, key), _looker(result, requests, key, finishes=finishes))
    reason = _no_difference(pair, measure) if finishes else None
    if reason is not None:
        return {"reason": reason}
    names = {**_output_names(original, result, requests[-1][0]), **dict(_fed_names(pair))}
    _choose_rounds(pair, names, measure)
    alike = functools.cache(functools.partial(_alike, pair, measure))
    found = find_divergence(
        pair.original.traced(),
        pair.result.traced(),
        names=names,
        alike=(lambda *_: False) if measure.exact else alike,
    )
    saved = save_subgraph(found, original.graph, result.graph, pair, measure, scratch)
    about = {**_to_json(found, pair), **_inside(found, original.graph, result.graph)}
    pair.original.close()
    pair.result.close()
    return {**about, "subgraph": saved}


def _no_difference(pair: Pair, measure: Measure) -> str | None:
    """Why there is nothing to look for: the call made again gives no outputs that differ."""
    there, here = pair.original.value(pair.original.output), pair.result.value(pair.result.output)
    if there is None or here is None:
        return "the call cannot be made again"
    if not measure.passes(measure.compare(there, here)):
        return None
    return (
        "one thread without Grappler gives equal outputs: the difference comes from how TensorFlow runs"
        " the graph, not from a node"
    )


def _choose_rounds(pair: Pair, names: Mapping[str, str], measure: Measure) -> None:
    """Has both sides look at the first rounds of their loops in which anything differs."""
    twins = {name: name for name in pair.result.nodes if name in pair.original.nodes}
    there, here, unlike = first_rounds(
        pair.original.record, pair.result.record, {**twins, **names}, measure.same
    )
    pair.original.look_at(there, frozenset())
    pair.result.look_at(here, unlike)


def _alike(pair: Pair, measure: Measure, there: str, here: str) -> bool:
    """Whether two tensors are within the tolerance."""
    one, other = pair.original.value(there), pair.result.value(here)
    return one is not None and other is not None and measure.same(one, other)


def _fed_names(pair: Pair) -> Iterator[tuple[str, str]]:
    """Inputs of the result to those of the original, by what was fed."""
    for tensor, value in pair.result.feeds.items():
        for other, same in pair.original.feeds.items():
            if same is value:
                yield node_of(tensor), node_of(other)


def _output_names(original: _Flat, result: _Flat, signature: str) -> dict[str, str]:
    """Outputs of the result, which may be named after their keys, to those of the original.

    Only nodes whose names are not on the other side: those of the same op under the same key, then of the
    same op, then under the same key.
    """
    there, here = _output_nodes(original, signature), _output_nodes(result, signature)
    free = {key: name for key, name in there.items() if name not in result.graph.nodes}
    new = {key: name for key, name in here.items() if name not in original.graph.nodes}
    found: dict[str, str] = {}
    for same_key, same_op in ((True, True), (False, True), (True, False)):
        for (key, name), (other, twin) in itertools.product(new.items(), free.items()):
            is_op = result.graph.nodes[name].op == original.graph.nodes[twin].op
            fits = (key == other or not same_key) and (is_op or not same_op)
            if fits and name not in found and twin not in found.values():
                found[name] = twin
    return found


def _output_nodes(flat: _Flat, signature: str) -> dict[str, str]:
    outputs = flat.side.signatures[signature].outputs
    nodes = flat.graph.nodes
    return {k: node_of(through_identities(nodes, spec.tensor)) for k, spec in outputs.items()}


def _to_json(found: Divergence, pair: Pair) -> dict[str, Json]:
    side = pair.original if found.kind == "missing" else pair.result
    because = {"because": side.unseen_because(found.node)} if found.kind == "unseen" else {}
    return {
        "node": found.node,
        "op": found.op,
        "kind": found.kind,
        "says": IN_WORDS[found.kind],
        "counterpart": found.counterpart or None,
        "round": side.round_of(found.node),
        "others": list(found.others[:_NAMED]),
        **because,
    }


def _inside(found: Divergence, original: Graph, result: Graph) -> dict[str, Json]:
    """The node in a function's body, where the node that differs has functions."""
    if found.kind != "computation":
        return {"inside": None}
    there, here = original.nodes[found.counterpart], result.nodes[found.node]
    return {"inside": difference_inside(original, there, result, here)}
