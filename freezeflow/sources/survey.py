"""What a model's files say about it before any part of it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.graph.graph import Graph
from freezeflow.sources.checkpoint import meta_graph_file
from freezeflow.sources.graph_file import ParsedFile, parse_file
from freezeflow.sources.mapped_weights import with_mapped_weights
from freezeflow.sources.saved_model import choose_meta_graph, graph_file
from freezeflow.sources.signatures import INTERNAL_SIGNATURES, read_signature
from freezeflow.sources.trainable import trainable_handles
from freezeflow.values import ModelSource, Signature, SourceKind


class Survey(NamedTuple):
    """A model as it lies there.

    Args:
        graph: The whole graph, training and saving included.
        signatures: Its signatures; empty where it has none.
        tag_sets: The tag sets of its meta graphs, sorted.
        tags: The tag set that was chosen.
        written_by: The version of TensorFlow that wrote it; empty where it does not say.
        trainable: Handle node to whether its variable was trained, where that is said.
        checkpoint: The prefix of its checkpoint; None where it has none.
    """

    graph: Graph
    signatures: Mapping[str, Signature]
    tag_sets: tuple[tuple[str, ...], ...] = ()
    tags: tuple[str, ...] = ()
    written_by: str = ""
    trainable: Mapping[str, bool] = {}
    checkpoint: Path | None = None


def survey(source: ModelSource) -> Survey:
    """Reads a model's graph and signatures, not its weights.

    Raises:
        ModelRefused: Its graph is damaged, it lacks the wanted meta graph, or it is a Keras file,
            which is no graph before Keras has built one.
    """
    reader = _READERS.get(source.kind)
    if reader is None:
        raise ModelRefused("a Keras file holds no graph yet", where=str(source.path))
    return reader(source)


def _saved_model(source: ModelSource) -> Survey:
    path = graph_file(source.path)
    parsed = parse_file(path, "SavedModel")
    chosen = choose_meta_graph(parsed.message, source, path)
    tag_sets = sorted(tuple(sorted(m.meta_info_def.tags)) for m in parsed.message.meta_graphs)
    own = source.path / "variables" / "variables"
    return _meta_graph(parsed, chosen)._replace(
        tag_sets=tuple(tag_sets), checkpoint=source.weights or own
    )


def _checkpoint(source: ModelSource) -> Survey:
    parsed = parse_file(meta_graph_file(source), "MetaGraphDef")
    return _meta_graph(parsed, parsed.message)._replace(checkpoint=source.path)


def _meta_graph(parsed: ParsedFile, message: Any) -> Survey:
    info = message.meta_info_def
    names = sorted(set(message.signature_def) - INTERNAL_SIGNATURES)
    graph = parsed.reader(message.graph_def, info.stripped_op_list.op).graph()
    return Survey(
        graph=graph,
        signatures={name: read_signature(message.signature_def[name]) for name in names},
        tags=tuple(sorted(info.tags)),
        written_by=info.tensorflow_version,
        trainable=trainable_handles(message, graph),
    )


def _frozen_graph(source: ModelSource) -> Survey:
    parsed = parse_file(source.path, "GraphDef")
    graph = with_mapped_weights(parsed.reader(parsed.message).graph(), source.path.parent)
    return Survey(graph=graph, signatures={}, checkpoint=source.weights)


_READERS: dict[SourceKind, Callable[[ModelSource], Survey]] = {
    "saved_model": _saved_model,
    "checkpoint": _checkpoint,
    "frozen_graph": _frozen_graph,
}
