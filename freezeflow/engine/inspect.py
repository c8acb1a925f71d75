"""Looks into a model: what it consists of, and, by trying, what would stop a freeze."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

from freezeflow.engine.direct import run_chain
from freezeflow.errors import FreezeflowError
from freezeflow.graph.inspection import (
    Inspection,
    SignatureFacts,
    assets_of,
    graph_facts,
    variables_of,
)
from freezeflow.graph.model import Model
from freezeflow.sources.registry import source_files
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
    with tempfile.TemporaryDirectory(prefix="freezeflow-") as scratch:
        if source.needs_tensorflow:
            # Only Keras can build the graph; there is nothing to see before it has.
            loaded = _run(source, "load", scratch=Path(scratch))
            found = Survey(loaded.graph, loaded.signatures)
            signatures = tuple(_frozen(source, loaded, Path(scratch)) for _ in loaded.signatures)
        else:
            found = survey(source)
            signatures = tuple(
                _signature(part, found, Path(scratch)) for part in _parts(source, found)
            )
        return _inspection(source, found, signatures)


def _parts(source: ModelSource, found: Survey) -> list[ModelSource]:
    """The source, one signature at a time."""
    names = () if source.outputs else source.signatures or tuple(found.signatures)
    return [dataclasses.replace(source, signatures=(name,)) for name in names] or [source]


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
    """One signature, loaded and frozen as a recipe would."""
    try:
        loaded = _run(source, "load", scratch=scratch)
    except FreezeflowError as error:
        name = source.signatures[0] if source.signatures else SIGNATURE
        return SignatureFacts(name=name, signature=found.signatures.get(name), obstacle=error)
    return _frozen(source, loaded, scratch)


def _frozen(source: ModelSource, loaded: Model, scratch: Path) -> SignatureFacts:
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
