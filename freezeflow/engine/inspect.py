"""Looks into a model: what it consists of, and, by trying, what would stop a freeze."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path

from freezeflow.checkpoint import open_checkpoint
from freezeflow.engine.direct import run_chain
from freezeflow.errors import FreezeflowError
from freezeflow.graph import walk
from freezeflow.graph.bind import settle_branches
from freezeflow.graph.freeze import WriteEffect, write_effects
from freezeflow.graph.graph import Graph
from freezeflow.graph.inspection import (
    CheckpointFacts,
    Inspection,
    SignatureFacts,
    assets_of,
    checkpoint_facts,
    frozen_bytes_of,
    graph_facts,
    has_writes,
    random_ops_of,
    tables_of,
    variables_of,
)
from freezeflow.graph.model import Model
from freezeflow.sources.registry import source_files
from freezeflow.sources.signatures import ends_of
from freezeflow.sources.survey import Survey, survey
from freezeflow.sources.tensor_names import SIGNATURE
from freezeflow.stages.registry import stage_named
from freezeflow.store.background import unchecked
from freezeflow.values import ModelSource


def inspect_source(source: ModelSource, *, check_weights: bool = False) -> Inspection:
    """Reads a model and tries to freeze each of its signatures; nothing is written.

    Args:
        source: The model. Its signatures, if it names any, are the only ones that are looked at.
        check_weights: Read every weight and compare it with its checksum, too.

    Raises:
        ModelRefused: Its graph cannot be read, or it lacks the wanted meta graph.
    """
    with tempfile.TemporaryDirectory(prefix="freezeflow-") as folder:
        scratch = Path(folder)
        if source.needs_tensorflow:
            # Only Keras can build the graph; there is nothing to see before it has.
            loaded = _Look(source, Survey(_NO_GRAPH, {}), scratch, check_weights).loaded(source)
            found = Survey(loaded.graph, loaded.signatures)
            signatures = _Look(source, found, scratch, check_weights).frozen_each(loaded)
            return _inspection(source, found, signatures)
        with contextlib.nullcontext() if check_weights else unchecked():
            found = survey(source)
            signatures = _Look(source, found, scratch, check_weights).signatures()
            return _inspection(source, found, signatures)


_NO_GRAPH = Graph(nodes={})


class _Look:
    """A look at one model's signatures."""

    def __init__(
        self, source: ModelSource, found: Survey, scratch: Path, check_weights: bool
    ) -> None:
        self._source = source
        self._found = found
        self._scratch = scratch
        self._check_weights = check_weights

    def signatures(self) -> tuple[SignatureFacts, ...]:
        """Each signature; the weights are read once where all can be loaded together."""
        source = self._source
        names = () if source.outputs else source.signatures or tuple(self._found.signatures)
        parts = [dataclasses.replace(source, signatures=(name,)) for name in names] or [source]
        try:
            together = dataclasses.replace(source, signatures=names or source.signatures)
            return self.frozen_each(self.loaded(together))
        except FreezeflowError as error:
            if len(parts) == 1:
                return (self._unloaded(parts[0], error),)
        return tuple(self._signature(part) for part in parts)

    def loaded(self, source: ModelSource) -> Model:
        return self._run(source, "load")

    def frozen_each(self, loaded: Model) -> tuple[SignatureFacts, ...]:
        return tuple(self._frozen(_only(loaded, name)) for name in loaded.signatures)

    def _signature(self, part: ModelSource) -> SignatureFacts:
        try:
            loaded = self.loaded(part)
        except FreezeflowError as error:
            return self._unloaded(part, error)
        return self.frozen_each(loaded)[0]

    def _unloaded(self, part: ModelSource, error: FreezeflowError) -> SignatureFacts:
        name = part.signatures[0] if part.signatures else SIGNATURE
        signature = self._found.signatures.get(name)
        return SignatureFacts(name=name, signature=signature, obstacle=error)

    def _frozen(self, loaded: Model) -> SignatureFacts:
        """One signature, frozen as a recipe would."""
        ((name, signature),) = loaded.signatures.items()
        facts = SignatureFacts(
            name=name,
            signature=signature,
            variables=variables_of(loaded, self._found.trainable),
            assets=assets_of(loaded),
            tables=tables_of(loaded),
            random_ops=random_ops_of(loaded),
        )
        try:
            facts = dataclasses.replace(facts, writes=_writes(loaded))
            frozen = self._run(self._source, "freeze", "strip", start=loaded)
        except FreezeflowError as error:
            return dataclasses.replace(facts, obstacle=error)
        return dataclasses.replace(
            facts,
            random_ops=random_ops_of(frozen),
            frozen_nodes=graph_facts(frozen.graph).nodes,
            frozen_bytes=frozen_bytes_of(frozen),
        )

    def _run(self, source: ModelSource, *names: str, start: Model | None = None) -> Model:
        stages = [(stage, stage.params()) for stage in map(stage_named, names)]
        return run_chain(
            source,
            stages,
            base=self._scratch,
            start=start,
            scratch=self._scratch,
            check_weights=self._check_weights,
        ).model


def _writes(loaded: Model) -> tuple[WriteEffect, ...]:
    return write_effects(settle_branches(loaded)) if has_writes(loaded) else ()


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
        checkpoint=_checkpoint(found),
        signatures=signatures,
    )


def _checkpoint(found: Survey) -> CheckpointFacts | None:
    """What the checkpoint's index says; a missing or damaged one is the signatures' obstacle."""
    if found.checkpoint is None:
        return None
    try:
        return checkpoint_facts(open_checkpoint(found.checkpoint).entries())
    except FreezeflowError:
        return None


def _existing(source: ModelSource) -> tuple[Path, ...]:
    """The model's files; those that are missing are the obstacle that a signature tells of."""
    try:
        return source_files(source)
    except FreezeflowError:
        return (source.path,) if source.path.is_file() else ()


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
