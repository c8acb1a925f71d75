"""Looks into a model: what it consists of, and, by trying, what would stop a freeze."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

from freezeflow.engine.direct import run_chain
from freezeflow.errors import FreezeflowError
from freezeflow.graph import walk
from freezeflow.graph.inspection import (
    Inspection,
    SignatureFacts,
    assets_of,
    graph_facts,
    variables_of,
)
from freezeflow.graph.model import Model
from freezeflow.sources.registry import source_files
from freezeflow.sources.signatures import ends_of
from freezeflow.sources.survey import Survey, survey
from freezeflow.sources.tensor_names import SIGNATURE
from freezeflow.stages.registry import stage_named
from freezeflow.values import ModelSource


def inspect_source(source: ModelSource) -> Inspection:
    """Reads a model and tries to freeze each of its signatures; nothing is written.

    Args:
        source: The model. Its signatures, if it names any, are the only ones that are looked at.

    Raises:
        ModelRefused: Its graph cannot be read, or it lacks the wanted meta graph.
    """
    with tempfile.TemporaryDirectory(prefix="freezeflow-") as folder:
        scratch = Path(folder)
        if source.needs_tensorflow:
            # Only Keras can build the graph; there is nothing to see before it has.
            loaded = _run(source, "load", scratch=scratch)
            found = Survey(loaded.graph, loaded.signatures)
            signatures = _frozen_each(source, loaded, scratch)
        else:
            found = survey(source)
            signatures = _signatures(source, found, scratch)
        return _inspection(source, found, signatures)


def _signatures(source: ModelSource, found: Survey, scratch: Path) -> tuple[SignatureFacts, ...]:
    """Each signature; the weights are read once where all of them can be loaded together."""
    names = () if source.outputs else source.signatures or tuple(found.signatures)
    parts = [dataclasses.replace(source, signatures=(name,)) for name in names] or [source]
    try:
        together = dataclasses.replace(source, signatures=names or source.signatures)
        return _frozen_each(source, _run(together, "load", scratch=scratch), scratch)
    except FreezeflowError as error:
        if len(parts) == 1:
            return (_unloaded(parts[0], found, error),)
    return tuple(_signature(part, found, scratch) for part in parts)


def _inspection(
    source: ModelSource, found: Survey, signatures: tuple[SignatureFacts, ...]
) -> Inspection:
    files = _existing(source)
    return Inspection(
        path=source.path,
        kind=source.kind,
        files=len(files),
        nbytes=sum(os.stat(path).st_size for path in files),
        tag_sets=found.tag_sets,
        tags=found.tags,
        written_by=found.written_by,
        graph=graph_facts(found.graph),
        signatures=signatures,
    )


def _existing(source: ModelSource) -> tuple[Path, ...]:
    """The model's files; those that are missing are the obstacle that a signature tells of."""
    try:
        return source_files(source)
    except FreezeflowError:
        return (source.path,) if source.path.is_file() else ()


def _signature(source: ModelSource, found: Survey, scratch: Path) -> SignatureFacts:
    try:
        loaded = _run(source, "load", scratch=scratch)
    except FreezeflowError as error:
        return _unloaded(source, found, error)
    return _frozen_each(source, loaded, scratch)[0]


def _unloaded(source: ModelSource, found: Survey, error: FreezeflowError) -> SignatureFacts:
    name = source.signatures[0] if source.signatures else SIGNATURE
    return SignatureFacts(name=name, signature=found.signatures.get(name), obstacle=error)


def _frozen_each(source: ModelSource, loaded: Model, scratch: Path) -> tuple[SignatureFacts, ...]:
    return tuple(_frozen(source, _only(loaded, name), scratch) for name in loaded.signatures)


def _only(model: Model, name: str) -> Model:
    """A loaded model as it would be if one of its signatures alone had been asked for."""
    signatures = {name: model.signatures[name]}
    graph = walk.prune(model.graph, [*ends_of(signatures), *model.init])
    return dataclasses.replace(
        model,
        graph=graph,
        signatures=signatures,
        variables={handle: v for handle, v in model.variables.items() if handle in graph.nodes},
        assets=tuple(asset for asset in model.assets if asset.tensor in graph.nodes),
    )


def _frozen(source: ModelSource, loaded: Model, scratch: Path) -> SignatureFacts:
    """One signature, frozen as a recipe would."""
    ((name, signature),) = loaded.signatures.items()
    facts = SignatureFacts(
        name=name,
        signature=signature,
        variables=variables_of(loaded),
        assets=assets_of(loaded),
    )
    try:
        frozen = _run(source, "freeze", "strip", start=loaded, scratch=scratch)
    except FreezeflowError as error:
        return dataclasses.replace(facts, obstacle=error)
    return dataclasses.replace(facts, frozen_nodes=graph_facts(frozen.graph).nodes)


def _run(source: ModelSource, *names: str, scratch: Path, start: Model | None = None) -> Model:
    stages = [(stage, stage.params()) for stage in map(stage_named, names)]
    return run_chain(source, stages, base=scratch, start=start, scratch=scratch).model
