"""Finds the node at which a result begins to differ from its original, and saves it with its inputs.

Both sides run the failing call once more as the exact level runs, and every tensor on the way to the
output is looked at. The original runs with its calls inlined by freezeflow, so that what happens in
functions can be looked at, too; that this changes nothing is checked first.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from freezeflow.errors import FreezeflowError
from freezeflow.graph.graph import node_of
from freezeflow.graph.inline import inline_calls
from freezeflow.graph.model import Model
from freezeflow.graph.original import Original
from freezeflow.graph.write import graph_def_pieces, materialise
from freezeflow.proof.calls import Call
from freezeflow.proof.compare import same_bytes
from freezeflow.proof.divergence import (
    IN_WORDS,
    Divergence,
    find_divergence,
    through_identities,
)
from freezeflow.proof.divergence import (
    Side as Traced,
)
from freezeflow.proof.inside import difference_inside
from freezeflow.proof.judge import Answers, Measure, failing_outputs, first_failure
from freezeflow.tf.looking import Looker, Pair
from freezeflow.tf.sides import original_side, result_side
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
    scratch: Path,
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
        ``counterpart`` (its node in the other graph), ``inside`` (the node in a function's body),
        ``others`` (further differences), ``subgraph`` (whether the failing part could be saved); or
        ``reason`` alone where the difference cannot be found. None where no call gave outputs that
        differ.
    """
    index = first_failure(calls, answers, measure)
    if index is None:
        return None
    signature = calls[index].signature
    key = failing_outputs(index, answers, measure)[0]
    about: dict[str, Json] = {
        "call": f"{calls[index].kind}: {calls[index].origin}",
        "signature": signature,
        "output": key,
    }
    try:
        flat = _inlined(original, scratch)
        requests = [(call.signature, call.inputs) for call in calls[: index + 1]]
        pair = _pair(flat, model, requests, key, scratch)
        found = _located(flat, model, pair, measure, scratch)
    except FreezeflowError as error:
        return {**about, "reason": error.message}
    return {**about, **found}


def _inlined(original: Original, scratch: Path) -> Original:
    """The original with its calls inlined, as a file of its own."""
    graph = original.graph
    ends = [
        spec.tensor
        for signature in original.signatures.values()
        for spec in (*signature.inputs.values(), *signature.outputs.values())
    ]
    wanted = [*ends, *original.assets, *filter(None, [original.filename_tensor])]
    targets = [*original.init, *filter(None, [original.restore_op])]
    inlined = inline_calls(graph, wanted, targets)
    file = scratch / "inlined.pb"
    file.write_bytes(materialise(graph_def_pieces(inlined.graph)))
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
    return dataclasses.replace(
        original, file=file, message="GraphDef", graph=inlined.graph, signatures=signatures
    )


def _pair(
    original: Original, model: Model, requests: list[tuple[str, Json]], key: str, scratch: Path
) -> Pair:
    name = requests[-1][0]
    there = original.signatures[name].outputs[key].tensor
    here = model.signatures[name].outputs[key].tensor
    return Pair(
        Looker(
            original_side(original, model.bound, exact=True),
            original.graph,
            requests,
            through_identities(original.graph.nodes, there),
        ),
        Looker(
            result_side(model, scratch, exact=True),
            model.graph,
            requests,
            through_identities(model.graph.nodes, here),
        ),
    )


def _located(
    original: Original, model: Model, pair: Pair, measure: Measure, scratch: Path
) -> dict[str, Json]:
    there, here = pair.original.value(pair.original.output), pair.result.value(pair.result.output)
    if there is None or here is None:
        return {"reason": "the call cannot be made again"}
    if measure.passes(measure.compare(there, here)):
        return {
            "reason": "one thread without Grappler gives equal outputs: the difference comes from how "
            "TensorFlow runs the graph, not from a node"
        }
    alike = functools.cache(functools.partial(_alike, pair, measure))
    found = find_divergence(
        _traced(pair.original),
        _traced(pair.result),
        names=dict(_fed_names(pair)),
        alike=(lambda *_: False) if measure.exact else alike,
    )
    saved = save_subgraph(found, original.graph, model.graph, pair, measure, scratch)
    pair.original.close()
    pair.result.close()
    return {**_to_json(found), **_inside(found, original, model), "subgraph": saved}


def _traced(looker: Looker) -> Traced:
    return Traced(nodes=looker.nodes, prints=looker.prints(), output=looker.output, fed=looker.fed)


def _alike(pair: Pair, measure: Measure, there: str, here: str) -> bool:
    """Whether two tensors are within the tolerance."""
    one, other = pair.original.value(there), pair.result.value(here)
    if one is None or other is None:
        return False
    return same_bytes(one, other) or measure.passes(measure.compare(one, other))


def _fed_names(pair: Pair) -> Iterator[tuple[str, str]]:
    """Inputs of the result to those of the original, by what was fed."""
    for tensor, value in pair.result.feeds.items():
        for other, same in pair.original.feeds.items():
            if same is value:
                yield node_of(tensor), node_of(other)


def _to_json(found: Divergence) -> dict[str, Json]:
    return {
        "node": found.node,
        "op": found.op,
        "kind": found.kind,
        "says": IN_WORDS[found.kind],
        "counterpart": found.counterpart or None,
        "others": list(found.others[:_NAMED]),
    }


def _inside(found: Divergence, original: Original, model: Model) -> dict[str, Json]:
    """The node in a function's body, where the node that differs has functions."""
    if found.kind != "computation":
        return {"inside": None}
    there, here = original.graph, model.graph
    return {
        "inside": difference_inside(
            there, there.nodes[found.counterpart], here, here.nodes[found.node]
        )
    }
