"""What can be compared: a model, a graph file, a release, what a recipe or one of its steps gave."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from freezeflow.engine.direct import run_chain
from freezeflow.errors import ModelRefused, UsageError
from freezeflow.exports.manifest import Manifest, manifest_path, read_manifest
from freezeflow.graph.model import Model
from freezeflow.plan import Plan
from freezeflow.release.folder import DESCRIPTION, read_description
from freezeflow.sources.graph_file import parse_file
from freezeflow.sources.guess import find_model
from freezeflow.sources.registry import source_files
from freezeflow.sources.survey import survey
from freezeflow.sources.tensor_names import signature_of_names
from freezeflow.stages.registry import stage_named
from freezeflow.suggestions import did_you_mean
from freezeflow.values import ModelSource

_RECIPES = (".yaml", ".yml")


class Part(NamedTuple):
    """A model of an operand.

    Args:
        load: Reads it.
        by_tensor_name: Its callers name tensors.
        nbytes: Bytes of its files; None for one that is in the cache only.
    """

    load: Callable[[], Model]
    by_tensor_name: bool = False
    nbytes: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """One side of a comparison.

    Args:
        text: How it was named.
        parts: Its models by name.
        files: Of a release: the SHA-256 of each artifact, by its path; None for anything else.
    """

    text: str
    parts: Mapping[str, Part]
    files: Mapping[str, str] | None = None


class Reader:
    """Reads operands; what they hold lies in files that are there until it is closed.

    Args:
        plans_of: Gives the plans of a recipe.
        cached: Gives the model that a step of a plan gave, from the cache.
    """

    def __init__(
        self,
        plans_of: Callable[[Path], Sequence[Plan]],
        cached: Callable[[Plan, str], Model],
    ) -> None:
        self._plans_of = plans_of
        self._cached = cached
        self._kept = ExitStack()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._kept.close()

    def operand(self, text: str) -> Operand:
        """What a text names: the path of a model or recipe, or ``RECIPE:STEP``.

        Raises:
            UsageError: There is nothing of that name.
            ModelRefused: What is there is no model.
        """
        if (Path(text) / DESCRIPTION).is_file():
            return self._release(text)
        recipe, step = _recipe_and_step(text)
        parts = self._of_recipe(recipe, step) if recipe is not None else self._of_path(Path(text))
        return Operand(text=text, parts=parts)

    # ------------------------------------------------------------ recipes

    def _of_recipe(self, recipe: Path, step: str | None) -> dict[str, Part]:
        plans = self._plans_of(recipe)
        wanted = [(plan, name) for plan in plans for name in _ends(plan) if step is None]
        if step is not None:
            wanted = [
                (p, s.id) for p in plans for s in p.steps if step in (s.id, f"{p.name}/{s.id}")
            ]
        if not wanted:
            known = list(dict.fromkeys(s.id for plan in plans for s in plan.steps))
            raise UsageError(
                f"no step is called {step!r}",
                where=str(recipe),
                hint=did_you_mean(step or "", known),
            )
        return {
            f"{plan.name}/{name}": Part(functools.partial(self._cached, plan, name))
            for plan, name in wanted
        }

    # ------------------------------------------------------------ files

    def _release(self, text: str) -> Operand:
        """The models of a release that have a manifest, and the digests of all its artifacts."""
        root = Path(text)
        described = read_description(root)
        parts: dict[str, Part] = {}
        for name in described:
            if name.endswith("manifest.json"):
                for model in _models_beside(root / name):
                    place = model.relative_to(root).as_posix()
                    parts[place] = next(iter(self._of_path(model).values()))
        return Operand(text=text, parts=parts, files=described)

    def _of_path(self, path: Path) -> dict[str, Part]:
        kind, found = find_model(os.fspath(path))
        source = ModelSource(kind=kind, path=found.absolute())
        nbytes = sum(file.stat().st_size for file in source_files(source))
        load = self._graph_file if kind == "frozen_graph" else self._source
        return {path.name: Part(lambda: load(source), kind == "frozen_graph", nbytes)}

    def _graph_file(self, source: ModelSource) -> Model:
        """The whole graph of a file, with the signatures of the manifest beside it."""
        parsed = parse_file(source.path, "GraphDef")
        graph = parsed.reader(parsed.message).graph()
        manifest = _manifest_of(source.path)
        if manifest is not None:
            return Model(graph=graph, signatures=manifest.signatures, init=manifest.init)
        try:
            guessed = signature_of_names(graph, (), (), str(source.path))
        except ModelRefused:
            # The nodes can be compared all the same.
            return Model(graph=graph, signatures={})
        return Model(graph=graph, signatures={"serving_default": guessed})

    def _source(self, source: ModelSource) -> Model:
        """A model with the weights of all its signatures; a Keras file is loaded by Keras, confined."""
        if source.kind != "keras":
            names = tuple(survey(source).signatures)
            source = dataclasses.replace(source, signatures=names or None)
        folder = self._kept.enter_context(tempfile.TemporaryDirectory(prefix="freezeflow-"))
        stage = stage_named("load")
        chain = [(stage, stage.params())]
        return run_chain(source, chain, base=Path(folder), scratch=Path(folder)).model


def _recipe_and_step(text: str) -> tuple[Path | None, str | None]:
    if Path(text).suffix in _RECIPES:
        return Path(text), None
    path, colon, step = text.rpartition(":")
    if colon and Path(path).suffix in _RECIPES:
        return Path(path), step
    return None, None


def _ends(plan: Plan) -> list[str]:
    """The steps that no other step needs."""
    needed = {need for step in plan.steps for need in step.needs}
    return [step.id for step in plan.steps if step.id not in needed]


def _models_beside(manifest: Path) -> list[Path]:
    """The graph files and SavedModel folders that a manifest describes."""
    try:
        files = [manifest.parent / name for name in read_manifest(manifest).files]
    except ModelRefused:
        # Another format's file of that name.
        return []
    graphs = [file for file in files if file.suffix in (".pb", ".pbtxt")]
    return [file.parent if file.name == "saved_model.pb" else file for file in graphs]


def _manifest_of(path: Path) -> Manifest | None:
    """The manifest beside a graph file, if it is of this very file's name."""
    manifest = manifest_path(path)
    if not manifest.is_file():
        return None
    found = read_manifest(manifest)
    return found if path.name in found.files else None
