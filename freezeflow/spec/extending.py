"""``extends``: another recipe, of which this one says only what differs; and shared ``blocks``.

Paths start from the folder of the recipe in which they are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from freezeflow.errors import RecipeError
from freezeflow.spec.paths import missing_hint
from freezeflow.spec.problems import InvalidRecipe, shown
from freezeflow.spec.tree import Document, Path_, read_document
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Digest, Json

# Keys that a recipe has of its own.
_OWN = frozenset(("name", "version", "extends"))

# Keys whose entries are put together, one by one; others are taken as they are.
_JOINED = frozenset(("vars", "override", "blocks"))

# A recipe has one of them: its own takes the place of either.
_ONE_OF = frozenset(("model", "models"))

_USE = "use"


class Extended(NamedTuple):
    """A recipe with all that it extends.

    Args:
        document: All of it as one.
        bases: The other files, each with a digest of what is in it.
    """

    document: Document
    bases: Mapping[str, str]


def read_extended(path: Path, name: str) -> Extended:
    """Reads a recipe and those that it extends.

    Raises:
        RecipeError: The file cannot be read.
        InvalidRecipe: One of them is no YAML that a recipe may be.
    """
    bases: dict[str, str] = {}
    document = _read(path, name, [os.path.abspath(path)], bases)
    return Extended(_with_blocks(document), bases)


def _read(path: Path, name: str, way: Sequence[str], bases: dict[str, str]) -> Document:
    document = read_document(path, name)
    if not isinstance(document.data, dict):
        return document
    merged = None
    for place, text in _extended(document.data):
        base = _read_base(document, place, text, path, way, bases)
        if base is not None:
            merged = base if merged is None else _over(merged, base)
    return document if merged is None else _over(merged, document)


def _extended(data: Mapping[str, Json]) -> Iterator[tuple[Path_, str]]:
    given = data.get("extends")
    if isinstance(given, str):
        yield ("extends",), given
    elif isinstance(given, list):
        yield from (
            (("extends", number), text)
            for number, text in enumerate(given)
            if isinstance(text, str)
        )


def _read_base(
    document: Document,
    place: Path_,
    text: str,
    path: Path,
    way: Sequence[str],
    bases: dict[str, str],
) -> Document | None:
    """A recipe that another one extends; None where that is noted as a mistake."""
    file = Path(os.path.normpath(path.parent / text))
    name = os.path.normpath(os.path.join(os.path.dirname(document.name), text))
    where = os.path.abspath(file)
    if where in way:
        circle = " extends ".join(
            os.path.basename(each) for each in [*way[way.index(where) :], where]
        )
        problem = document.problem(place, f"the recipes extend each other: {circle}")
        document.problems.append(problem._replace(hint="Take one of these out."))
        return None
    try:
        base = _read(file, name, [*way, where], bases)
    except InvalidRecipe:
        raise
    except RecipeError:
        hint = missing_hint(file)
        document.problems.append(document.problem(place, f"there is no recipe {shown(text)}", hint))
        return None
    bases[where] = Digest.of(file.read_bytes()).hex
    if not isinstance(base.data, dict):
        message = f"{shown(text)} is no recipe: it must be a mapping"
        document.problems.append(document.problem(place, message))
        return None
    return base


def _over(base: Document, own: Document) -> Document:
    """A recipe over the one that it extends: what it says itself goes before."""
    data: dict[str, Json] = {}
    merged = own.branch()
    replaced = set(_ONE_OF) if _ONE_OF & own.data.keys() else set()
    for key, value in base.data.items():
        if key not in _OWN and key not in own.data and key not in replaced:
            data[key] = value
            _bring(merged, base, (key,))
    for key, value in own.data.items():
        data[key] = value
        before = base.data.get(key)
        if key in _JOINED and isinstance(before, dict) and isinstance(value, dict):
            data[key] = {**before, **value}
            for name in before.keys() - value.keys():
                _bring(merged, base, (key, name))
    return merged._replace(
        data=data,
        problems=[*base.problems, *own.problems],
        spoiled={*own.spoiled, *(path for path in base.spoiled if path[:1] not in merged.homes)},
    )


def _bring(merged: Document, base: Document, path: Path_) -> None:
    """What stands at a path stands there in the base."""
    merged.copy_places(base, path, path)
    merged.homes[path] = (base, path)


# ---------------------------------------------------------------- blocks


def _with_blocks(document: Document) -> Document:
    """A recipe with the stages of its blocks in place of the items that use them."""
    data = document.data
    stages = data.get("stages") if isinstance(data, dict) else None
    if not isinstance(stages, list) or not any(map(_used, stages)):
        return document
    blocks = data.get("blocks")
    expanded = document.branch()
    items: list[Json] = []
    for item, origin in _expanded(stages, ("stages",), blocks, (), document):
        path: Path_ = ("stages", len(items))
        expanded.forget(path)
        expanded.copy_places(document, origin, path)
        expanded.homes[path] = (document, origin)
        items.append(item)
    return expanded._replace(data={**data, "stages": items})


def _expanded(
    items: Sequence[Json], at: Path_, blocks: Json, way: tuple[str, ...], document: Document
) -> Iterator[tuple[Json, Path_]]:
    for number, item in enumerate(items):
        path = (*at, number)
        name = _used(item)
        if name is None:
            yield item, path
            continue
        found = _block(name, path, blocks, way, document)
        inner = list(_expanded(found, ("blocks", name), blocks, (*way, name), document))
        for position, (stage, origin) in enumerate(inner):
            needs = item.get("needs") if position == 0 else None
            yield (_with_needs(stage, needs) if needs is not None else stage), origin


def _block(
    name: str, path: Path_, blocks: Json, way: tuple[str, ...], document: Document
) -> list[Json]:
    known = blocks if isinstance(blocks, dict) else {}
    place = (*path, _USE)
    if name in way:
        message = f"the blocks use each other: {' uses '.join([*way[way.index(name) :], name])}"
        document.problems.append(document.problem(place, message))
    elif name not in known:
        hint = (
            did_you_mean(name, known) or "Blocks stand under `blocks`, or in a recipe of `extends`."
        )
        document.problems.append(document.problem(place, f"there is no block {shown(name)}", hint))
    elif isinstance(known[name], list):
        found: list[Json] = known[name]
        return found
    return []


def _used(item: Json) -> str | None:
    name = item.get(_USE) if isinstance(item, dict) else None
    return name if isinstance(name, str) else None


def _with_needs(stage: Json, needs: Json) -> Any:
    body = {stage: None} if isinstance(stage, str) else stage
    return {**body, "needs": needs} if isinstance(body, dict) else stage
