"""Single models, without a recipe: find, inspect, freeze, load."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from freezeflow.errors import UsageError
from freezeflow.store.ahead import read_ahead
from freezeflow.values import AnyPath, Json, ModelSource

if TYPE_CHECKING:
    from freezeflow.engine.direct import ChainResult
    from freezeflow.graph.inspection import Inspection
    from freezeflow.graph.model import Model
    from freezeflow.stages.stage import Stage, WrittenFile

# What `freeze` does, in order.
CHAIN = ("load", "freeze", "strip")


def find_source(
    path: AnyPath,
    *,
    signatures: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    checkpoint: AnyPath | None = None,
    averages: bool = False,
    custom_objects: Sequence[str] = (),
) -> ModelSource:
    """Which kind of model a path names, and which part of it is wanted.

    Args:
        path: A SavedModel folder, a ``.keras`` or ``.h5`` file, a checkpoint's prefix, or a ``.pb``
            or ``.pbtxt`` graph.
        signatures: Names of signatures; None for ``serving_default``, else the only one.
        tags: The meta graph's tag set; None for ``serve``, else the only one.
        inputs: For graphs without signatures: names of the tensors to feed.
        outputs: For graphs without signatures: names of the tensors to fetch.
        checkpoint: Prefix of a checkpoint whose values are taken for the variables of a SavedModel
            or a graph file.
        averages: Take the moving averages of the variables that have one.
        custom_objects: For Keras files: modules with the model's own layers and functions.

    Raises:
        UsageError: There is nothing at that path.
        ModelRefused: What is there is no model.
    """
    from freezeflow.sources.guess import find_model

    kind, found = find_model(os.fspath(path))
    return ModelSource(
        kind=kind,
        path=found.absolute(),
        tags=None if tags is None else tuple(tags),
        signatures=None if signatures is None else tuple(signatures),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        weights=None if checkpoint is None else Path(checkpoint).absolute(),
        averages=averages,
        custom_objects=tuple(custom_objects),
    )


def inspect(
    path: AnyPath | ModelSource,
    *,
    tags: Sequence[str] | None = None,
    check_weights: bool = False,
) -> Inspection:
    """What a model consists of, and what would stop a freeze; without TensorFlow (but for Keras files).

    Args:
        path: The model, as for `find_source`, or what that gave.
        tags: The meta graph to look at; None for ``serve``, else the only one.
        check_weights: Read every weight and compare it with its checksum, too.

    Raises:
        UsageError: There is nothing at that path.
        ModelRefused: It cannot be read at all, or lacks that meta graph.
    """
    from freezeflow.engine.inspect import inspect_source

    wanted = path if isinstance(path, ModelSource) else find_source(path, tags=tags)
    return inspect_source(wanted, check_weights=check_weights)


def freeze(
    path: AnyPath | ModelSource,
    *,
    signatures: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    bind: Mapping[str, bool | int | float | str] | None = None,
    written: Literal["error", "keep", "drop"] = "error",
    tables: Literal["init", "inline"] = "init",
) -> Model:
    """Loads, freezes and strips a model; without TensorFlow (but for Keras files).

    Args:
        path: The model; this and the others as for `find_source`. Or what that gave, which then
            says it all.
        signatures: Names of signatures.
        tags: The meta graph's tag set.
        inputs: For graphs without signatures: names of the tensors to feed.
        outputs: For graphs without signatures: names of the tensors to fetch.
        bind: Inputs fixed to a value, by signature key or tensor name.
        written: What to do about a variable that a signature writes and an output sees.
        tables: Static look-up tables keep an initializer, or become pure ops.

    Returns:
        The frozen model. Its large constants are references into the model's own files, which must
        stay as they are while it is used.

    Raises:
        UsageError: There is nothing at that path.
        ModelRefused: It is damaged, or cannot be frozen with its meaning kept.
    """
    wanted = _wanted(path, signatures=signatures, tags=tags, inputs=inputs, outputs=outputs)
    from freezeflow.engine.direct import run_chain

    stages = _chain(bind=dict(bind or {}), written=written, tables=tables)
    return run_chain(wanted, stages, base=Path.cwd(), scratch=_scratch_until_exit()).model


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrozenFiles:
    """What `freeze_to` wrote.

    Args:
        files: The frozen graph, its manifest, then the files of external weights.
        facts: Figures of each stage, by its name.
        warnings: What a user should know.
    """

    files: tuple[WrittenFile, ...]
    facts: Mapping[str, Mapping[str, Json]]
    warnings: tuple[str, ...]


def freeze_to(
    path: AnyPath | ModelSource,
    to: AnyPath,
    *,
    signatures: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    bind: Mapping[str, bool | int | float | str] | None = None,
    written: Literal["error", "keep", "drop"] = "error",
    tables: Literal["init", "inline"] = "init",
    weights: Literal["inline", "external"] = "inline",
) -> FrozenFiles:
    """Freezes a model into a ``.pb`` (or ``.pbtxt``) file with its manifest beside it.

    Args:
        path: The model; this and the others as for `freeze`.
        to: The file to write; one that is there is replaced.
        signatures: Names of signatures.
        tags: The meta graph's tag set.
        inputs: For graphs without signatures: names of the tensors to feed.
        outputs: For graphs without signatures: names of the tensors to fetch.
        bind: Inputs fixed to a value, by signature key or tensor name.
        written: What to do about a variable that a signature writes and an output sees.
        tables: Static look-up tables keep an initializer, or become pure ops.
        weights: Large weights go into the file, or into files beside it, to which `load_graph` points.

    Raises:
        UsageError: There is nothing at that path, or `to` does not end in .pb or .pbtxt.
        ModelRefused: It is damaged, or cannot be frozen with its meaning kept; nothing is written.
        StageFailed: The files cannot be written; nothing partial is left.
    """
    wanted = _wanted(path, signatures=signatures, tags=tags, inputs=inputs, outputs=outputs)
    from freezeflow.engine.direct import run_chain

    export = _stage("export")
    values = {"to": os.fspath(to), "weights": weights}
    params = export.params_for(values)(**values)
    for name, message in export.problems(params):
        raise UsageError(message, where=name)
    stages = _chain(bind=dict(bind or {}), written=written, tables=tables)
    done = run_chain(wanted, [*stages, (export, params)], base=Path.cwd())
    return _frozen_files(done)


def load_graph(path: AnyPath, *, verify: bool = False) -> Any:
    """A frozen graph as TensorFlow's ``GraphDef``, for ``tf.import_graph_def``.

    Weights that were exported with ``weights: external`` are pointed at; TensorFlow maps their files into
    memory when the graph runs, so that processes share them.

    Args:
        path: The ``.pb`` or ``.pbtxt`` file; the folder of its weights lies beside it.
        verify: First hash the graph and its weights, and compare with the manifest.

    Raises:
        ModelRefused: The file holds no graph, a file of weights is missing or too short, or a file
            is not what the manifest says.
    """
    from freezeflow.exports.manifest import manifest_path
    from freezeflow.tf.mapped import load_graph as load

    file = Path(path).absolute()
    return load(file, manifest_path(file), verify=verify)


def _wanted(path: AnyPath | ModelSource, **part: Any) -> ModelSource:
    """The model to freeze, whose files are read ahead from now on; `part` as for `find_source`."""
    wanted = path if isinstance(path, ModelSource) else find_source(path, **part)
    read_ahead(wanted.path)
    return wanted


def _chain(**freeze: Any) -> list[tuple[Stage, Any]]:
    """The stages of `CHAIN` with their parameters: those of ``freeze`` as given, else the defaults."""
    stages = [_stage(name) for name in CHAIN]
    return [(stage, stage.params(**freeze if stage.name == "freeze" else {})) for stage in stages]


def _stage(name: str) -> Stage:
    from freezeflow.stages.registry import stage_named

    return stage_named(name)


@functools.cache
def _scratch_until_exit() -> Path:
    """A folder for constants of models that the caller holds, and no file of theirs does."""
    from freezeflow.store.files import remove_tree

    folder = Path(tempfile.mkdtemp(prefix="freezeflow-"))
    atexit.register(remove_tree, folder)
    return folder


def _frozen_files(done: ChainResult) -> FrozenFiles:
    names = [*CHAIN, "export"]
    return FrozenFiles(
        files=done.outcomes[-1].files,
        facts={name: outcome.facts for name, outcome in zip(names, done.outcomes, strict=True)},
        warnings=done.warnings,
    )
