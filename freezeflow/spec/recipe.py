"""A recipe's text checked and turned into frozen typed values; all its mistakes at once."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

from freezeflow.params import params_to_json, unkeyed
from freezeflow.spec.extending import read_extended
from freezeflow.spec.files import Chain, check_files, check_values
from freezeflow.spec.matrix import Matrix, Value, read_matrix
from freezeflow.spec.model_block import read_model
from freezeflow.spec.models import NamedModel, clean_name, read_models
from freezeflow.spec.notes import Looked, Notes
from freezeflow.spec.order import check_order
from freezeflow.spec.overriding import check_ids, overridden
from freezeflow.spec.problems import InvalidRecipe, Problem
from freezeflow.spec.stage_list import StageItem, StageList, read_stages
from freezeflow.spec.structure import check_required, check_structure
from freezeflow.spec.tree import Document, Path_, value_at
from freezeflow.spec.variables import Variable, check_settings, declared, fill_variables
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Digest, Json, ModelSource

__all__ = ["Recipe", "StageItem", "load_recipes"]

# Keys whose values differ from model to model, or from one combination of the matrix to another.
_VARIED = ("model", "stages")

# Keys whose values are looked at where they are used.
_APART = (*_VARIED, "override", "blocks")

# Mistakes at one place that are told, where a recipe with many models has many.
_ALIKE = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a checked recipe says for one of its models, with one combination of its matrix.

    Args:
        path: Its file, absolute.
        name: What the model is called, with the matrix's values; unique among those of the file.
        digest: Digest of what it says: comments, order of keys, defaults written out or not, and
            parameters that cannot change a result make no difference, and neither do other models.
        source: Where the model comes from.
        stages: Its stages, in the order of the file.
        bases: The recipes that it extends.
    """

    path: Path
    name: str
    digest: str
    source: ModelSource
    stages: tuple[StageItem, ...]
    bases: tuple[Path, ...] = ()


class Recipes(Sequence[Recipe]):
    """What a checked recipe says for each of its models; each is made when it is looked at.

    Of thousands of models most is the same, and what is checked is held once.

    Args:
        chains: What is done with each model.
        make: Makes the recipe of one.
    """

    def __init__(self, chains: Sequence[Chain], make: Callable[[Chain], Recipe]) -> None:
        self._chains = chains
        self._make = make

    def __len__(self) -> int:
        return len(self._chains)

    @overload
    def __getitem__(self, place: int) -> Recipe: ...

    @overload
    def __getitem__(self, place: slice) -> Recipes: ...

    def __getitem__(self, place: int | slice) -> Recipe | Recipes:
        if isinstance(place, slice):
            return Recipes(self._chains[place], self._make)
        return self._make(self._chains[place])


class Loaded(NamedTuple):
    """A recipe file: what it says for each model, and what else the check has looked at."""

    recipes: Recipes
    looked: Looked


def load_recipes(path: str | Path, *, set_vars: Mapping[str, str] | None = None) -> Loaded:
    """Reads and checks a recipe.

    Args:
        path: Its file.
        set_vars: Values of variables, which go before the recipe's own and the environment's.

    Raises:
        RecipeError: The file cannot be read.
        InvalidRecipe: It has mistakes; the error holds all of them.
        UsageError: A plugin's stage cannot be had.
    """
    document, bases = read_extended(Path(path), str(path))
    looked = Looked(texts=dict(bases))
    notes = Notes(document, looked)
    if not isinstance(document.data, dict):
        check_structure(document.data, notes)
        raise InvalidRecipe(notes.problems)
    reading = _Reading(document, Path(path).absolute(), set_vars or {}, notes)
    recipes = reading.recipes()
    if problems := reading.problems():
        raise InvalidRecipe(problems)
    return Loaded(recipes, looked)


class _Variant(NamedTuple):
    """The stages as they are for some of the models, with one combination of the matrix."""

    data: Mapping[str, Json]
    stages: StageList
    notes: Notes


class _Reading:
    """Reads one recipe.

    Args:
        document: Its text.
        where: Its file, absolute.
        set_vars: Values of variables from outside.
        notes: Gets the mistakes in what all models share.
    """

    def __init__(
        self, document: Document, where: Path, set_vars: Mapping[str, str], notes: Notes
    ) -> None:
        self._document = document
        self._where = where
        self._set_vars = set_vars
        self._notes = notes
        self._variants: dict[tuple[int, tuple[Path_, ...]], _Variant] = {}

    def recipes(self) -> Recipes:
        """What the recipe says for each model, where there are no mistakes (`problems`)."""
        data, notes = self._document.data, self._notes
        variables = declared(data, self._set_vars, notes)
        shared = {key: value for key, value in data.items() if key not in _APART}
        block = shared.get("matrix")
        names = [name for name in block if name != "exclude"] if isinstance(block, dict) else []
        check_settings(data, self._set_vars, names, notes)
        head = fill_variables(shared, variables, notes)
        check_structure(head, notes)
        check_structure({key: data[key] for key in ("override", "blocks") if key in data}, notes)
        check_required(data, notes)
        taken = dict.fromkeys(variables, "a variable")
        matrix = read_matrix(head.get("matrix"), taken, notes)
        named = isinstance(head.get("name"), str) and not notes.broken(("name",))
        name = head["name"] if named else self._where.stem
        models = self._models(head, name)
        chains = list(self._chains(models, matrix))
        outside = head.get("allow_outside") is True
        check_files(chains, self._where, allow_outside=outside)
        return Recipes(chains, self._recipe)

    def problems(self) -> list[Problem]:
        """All mistakes; of many that are alike, one for each of many models, a few."""
        found = dict.fromkeys(self._notes.problems)
        for variant in self._variants.values():
            found.update(dict.fromkeys(variant.notes.problems))
        return list(_few(list(found)))

    def _models(self, head: Mapping[str, Json], name: str) -> list[NamedModel]:
        """The recipe's models; one without a source where it has a `model` block or none."""
        if "models" in head and "model" not in self._document.data:
            models = read_models(head["models"], self._where, self._notes)
            if models:
                return models
        return [NamedModel(name, None, ("model",))]

    def _chains(self, models: Sequence[NamedModel], matrix: Matrix) -> Iterator[Chain]:
        used: set[Path_] = set()
        names: dict[str, str] = {}
        for model in models:
            for number, point in enumerate(matrix.points):
                out = [each for each in matrix.exclusions if each.leaves_out(point, model.name)]
                used.update(each.place for each in out)
                if not out:
                    yield self._chain(model, number, point, matrix, names)
        self._check_exclusions(models, matrix, used)

    def _chain(
        self,
        model: NamedModel,
        number: int,
        point: Mapping[str, Value],
        matrix: Matrix,
        names: dict[str, str],
    ) -> Chain:
        variant = self._variant(model, number, point, matrix)
        notes = variant.notes
        name = "-".join([model.name, *(clean_name(value.text) for value in point.values())])
        chain = Chain(
            name=name,
            model=model.name,
            point=point,
            source=model.source,
            stages=variant.stages.items,
            notes=notes,
        )
        if model.place == ("model",):
            block = variant.data.get("model")
            source = read_model(block, chain.places, self._where, notes)
            chain = dataclasses.replace(chain, source=source)
        other = names.setdefault(name, model.name)
        if other != model.name:
            message = (
                f"two combinations are called {name!r}, of the models {other} and {model.name}"
            )
            notes.add(model.place, message, "Give one of the models another name.")
        check_values(chain.items(), notes)
        return chain

    def _variant(
        self, model: NamedModel, number: int, point: Mapping[str, Value], matrix: Matrix
    ) -> _Variant:
        """The stages for a model with one combination of the matrix, checked once for all alike."""
        key = (number, model.changes)
        if key not in self._variants:
            self._variants[key] = self._make_variant(model.changes, point, matrix)
        return self._variants[key]

    def _make_variant(
        self, changes: tuple[Path_, ...], point: Mapping[str, Value], matrix: Matrix
    ) -> _Variant:
        data = self._document.data
        blocks = [("override",), *((*place, "override") for place in changes)]
        blocks = [block for block in blocks if value_at(data, block) is not None]
        document = overridden(self._document, blocks)
        notes = Notes(document, self._notes.looked)
        check_ids(document, blocks, notes)
        own = [(*place, "vars") for place in changes]
        variables = declared(data, self._set_vars, notes, own=own)
        variables |= {name: Variable(*value) for name, value in point.items()}
        varied = {key: document.data[key] for key in _VARIED if key in data}
        body = fill_variables(varied, variables, notes, unknown=matrix.unknown)
        check_structure(body, notes)
        stages = read_stages(body.get("stages"), notes)
        check_order(stages, body.get("stages"), notes)
        return _Variant(body, stages, notes)

    def _check_exclusions(
        self, models: Sequence[NamedModel], matrix: Matrix, used: set[Path_]
    ) -> None:
        for exclusion in matrix.exclusions:
            if exclusion.place not in used:
                hint = did_you_mean(exclusion.model, {model.name for model in models})
                self._notes.add(exclusion.place, "this excludes nothing", hint)
        if matrix.exclusions and not self._variants:
            self._notes.add(("matrix", "exclude"), "this excludes everything", key=True)

    def _recipe(self, chain: Chain) -> Recipe:
        assert chain.source is not None
        items = tuple(placed.item for placed in chain.items())
        name = chain.name
        return Recipe(
            path=self._where,
            name=name,
            digest=_digest(chain.source, items, self._where.parent, name),
            source=chain.source,
            stages=items,
            bases=tuple(map(Path, self._notes.looked.texts)),
        )


def _few(problems: Sequence[Problem]) -> Iterator[Problem]:
    """Of many mistakes at one place the first ones, the last of which tells how many there are."""
    by_place: dict[tuple[str, Any], list[Problem]] = {}
    for problem in problems:
        by_place.setdefault((problem.file, problem.mark), []).append(problem)
    for found in by_place.values():
        if len(found) <= _ALIKE + 1:
            yield from found
            continue
        yield from found[: _ALIKE - 1]
        last = found[_ALIKE - 1]
        more = f"There are {len(found) - _ALIKE} more mistakes like it here."
        yield last._replace(hint=f"{last.hint} {more}".strip())


def digest_of_stages(recipe: Recipe, ids: Collection[str]) -> str:
    """Digest of what a recipe says about its model and some of its stages.

    Neither the recipe's name nor what it says about other stages is in it.
    """
    items = tuple(item for item in recipe.stages if item.id in ids)
    return _digest(recipe.source, items, recipe.path.parent)


def _digest(
    source: ModelSource, items: tuple[StageItem, ...], base: Path, name: str | None = None
) -> str:
    def relative(path: str | None) -> str | None:
        return None if path is None else os.path.relpath(path, base)

    model = source.to_json()
    model |= {key: relative(model[key]) for key in ("path", "meta_graph", "weights")}
    said = {"name": name, "model": model, "stages": [_said(item) for item in items]}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return str(Digest.of(f"freezeflow.recipe/1\n{text}".encode()))


def _said(item: StageItem) -> Json:
    apart = unkeyed(type(item.params))
    params = {k: v for k, v in params_to_json(item.params).items() if k not in apart}
    return {"id": item.id, "stage": item.stage, "params": params, "needs": item.needs}
