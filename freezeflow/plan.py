"""From a recipe to the steps that have to be done: a DAG, in an order in which they can run.

A plan is plain data. It is kept beside the cache under what it was made from, so that a run in which
nothing has changed reads no YAML and checks no schema.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import io
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import blake3

from freezeflow.alike import Alike
from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.installed import version_of
from freezeflow.machine import machine_facts
from freezeflow.values import Digest, Json, ModelSource
from freezeflow.version import VERSION

if TYPE_CHECKING:
    from freezeflow.spec.recipe import Recipe, StageItem

FORMAT = "freezeflow.plan/4"

_HOUSE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage of one recipe, with all that its key is made of but the contents.

    Args:
        id: Its name in the plan.
        stage: The stage's name.
        stage_version: The stage's version.
        role: The stage's role: load, transform, check, export.
        params: All parameters as JSON, defaults filled in.
        unkeyed: Those of them that cannot change the result, and are no part of its key.
        input_files: Parameter name to the absolute path of a file that is read.
        output_files: Absolute paths that it publishes.
        needs: Ids of the steps that must be done before; the model comes from the first.
        source: The recipe's model.
        base: The recipe's folder.
        in_tensorflow: It runs in a confined process with TensorFlow.
        confines_itself: That process is not confined, but starts confined ones.
        reads_files: It reads what the steps that it needs have published.
        reads_source: Its result depends on the source itself, too.
        tools: Package to version, for the key.
        recipe_digest: Digest of what the recipe says about its files: the model, the step, and the steps
            that it needs, directly or through others, but for other exports, which hand their model
            on as it is. Empty for a step that is no export.
    """

    id: str
    stage: str
    stage_version: int
    role: str
    params: Mapping[str, Json]
    unkeyed: tuple[str, ...]
    input_files: Mapping[str, Path]
    output_files: tuple[Path, ...]
    needs: tuple[str, ...]
    source: ModelSource
    base: Path
    in_tensorflow: bool
    reads_source: bool
    tools: Mapping[str, str]
    confines_itself: bool = False
    reads_files: bool = False
    recipe_digest: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a recipe comes to for one model: its steps in an order in which they can run.

    Args:
        recipe: The recipe's file.
        name: What the model is called, with the matrix's values; unique in the recipe.
        digest: Digest of what the recipe says for it.
        steps: The steps.
        bases: The recipes that the recipe extends.
    """

    recipe: Path
    name: str
    digest: str
    steps: Sequence[Step]
    bases: tuple[Path, ...] = ()


class PackedSteps(Sequence[Step]):
    """The steps of one of many plans, which are made anew whenever they are looked at.

    Plans of one recipe say nearly the same; packed, thousands of them take no memory to speak of.

    Args:
        alike: What they were packed with.
        packed: The steps, packed.
        count: How many there are.
    """

    __slots__ = ("_alike", "_count", "_packed")

    def __init__(self, alike: Alike, packed: bytes, count: int) -> None:
        self._alike = alike
        self._packed = packed
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Step]:
        return iter(self._all())

    @overload
    def __getitem__(self, place: int) -> Step: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Step, ...]: ...

    def __getitem__(self, place: int | slice) -> Step | tuple[Step, ...]:
        return self._all()[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)

    # As steps themselves have none.
    __hash__ = None  # type: ignore[assignment]

    def _all(self) -> tuple[Step, ...]:
        return _steps_from_text(self._alike.unpack(self._packed))


def make_plan(recipe: Recipe) -> Plan:
    """Orders the stages of a checked recipe and fills in what their keys need.

    Raises:
        UsageError: A stage is not there any more.
    """
    from freezeflow.spec.order import needed_first

    items = recipe.stages
    numbers = {item.id: number for number, item in enumerate(items)}
    order = needed_first([[numbers[need] for need in item.needs] for item in items])
    before: dict[str, set[str]] = {}
    for item in (items[number] for number in order):
        before[item.id] = {*item.needs}.union(*(before[need] for need in item.needs))
    return Plan(
        recipe=recipe.path,
        name=recipe.name,
        digest=recipe.digest,
        bases=recipe.bases,
        steps=tuple(_step(recipe, items[n], before[items[n].id]) for n in order),
    )


def _step(recipe: Recipe, item: StageItem, before: Collection[str]) -> Step:
    from freezeflow.params import params_to_json, paths_in, unkeyed
    from freezeflow.spec.recipe import digest_of_stages
    from freezeflow.stages.registry import stage_named

    stage = stage_named(item.stage)
    is_export = stage.role == "export"
    params = params_to_json(item.params)
    paths = paths_in(type(item.params), params)
    base = recipe.path.parent
    demands = stage.demands_of(item.params, recipe.source)
    tools = {*stage.tools, *demands.tools}
    tools |= {"tensorflow", "keras"} if demands.in_tensorflow else set()
    return Step(
        id=item.id,
        stage=stage.name,
        stage_version=stage.version,
        role=stage.role,
        params=params,
        unkeyed=unkeyed(type(item.params)),
        input_files={
            ".".join(map(str, found.path)): _absolute(base, found.text)
            for found in paths
            if not found.output
        },
        output_files=tuple(_absolute(base, found.text) for found in paths if found.output),
        needs=item.needs,
        source=recipe.source,
        base=base,
        in_tensorflow=demands.in_tensorflow,
        reads_source=stage.reads_source,
        tools={
            **demands.versions,
            **{name: version_of(name) or "absent" for name in sorted(tools)},
        },
        confines_itself=demands.confines_itself,
        reads_files=demands.reads_files,
        recipe_digest=digest_of_stages(recipe, _shaping(recipe, item, before)) if is_export else "",
    )


def _shaping(recipe: Recipe, item: StageItem, before: Collection[str]) -> set[str]:
    """The stages on which the files of an export depend."""
    from freezeflow.stages.registry import stage_named

    needed = (each for each in recipe.stages if each.id in before)
    return {item.id, *(each.id for each in needed if stage_named(each.stage).role != "export")}


def _absolute(base: Path, path: str) -> Path:
    return Path(os.path.normpath(base / path))


# ---------------------------------------------------------------- as text


def encode_plans(plans: Iterable[Plan]) -> bytes:
    """Plans as lines of JSON: what they were packed with, then a line for each."""
    alike: Alike | None = None
    lines = []
    for plan in plans:
        text = _steps_to_text(plan.steps)
        if alike is None:
            alike = Alike(text)
        lines.append(
            [
                str(plan.recipe),
                plan.name,
                plan.digest,
                [str(path) for path in plan.bases],
                len(plan.steps),
                base64.b64encode(alike.pack(text)).decode(),
            ]
        )
    head = {"format": FORMAT, "sample": alike.sample.decode() if alike else ""}
    return b"\n".join(_compact(line) for line in [head, *lines])


def decode_plans(data: bytes) -> tuple[Plan, ...]:
    """The plans that `encode_plans` wrote; their steps are packed.

    Raises:
        ValueError, KeyError, TypeError: It is something else.
    """
    lines = io.BytesIO(data)
    said = json.loads(lines.readline())
    if said["format"] != FORMAT:
        raise ValueError(f"not a {FORMAT}")
    alike = Alike(said["sample"].encode())
    return tuple(_plan_from_line(line, alike) for line in lines)


def _plan_from_line(line: bytes, alike: Alike) -> Plan:
    recipe, name, digest, bases, count, packed = json.loads(line)
    return Plan(
        recipe=_path(recipe),
        name=name,
        digest=digest,
        bases=tuple(map(_path, bases)),
        steps=PackedSteps(alike, base64.b64decode(packed), count),
    )


def _steps_to_text(steps: Sequence[Step]) -> bytes:
    """Steps as JSON; each source stands there once, and steps name it by its number."""
    numbers: dict[ModelSource, int] = {}
    for step in steps:
        numbers.setdefault(step.source, len(numbers))
    return _compact(
        {
            "sources": [source.to_json() for source in numbers],
            "steps": [_step_to_json(step, numbers[step.source]) for step in steps],
        }
    )


def _steps_from_text(text: bytes) -> tuple[Step, ...]:
    data = json.loads(text)
    sources = [ModelSource.from_json(source) for source in data["sources"]]
    return tuple(_step_from_json(step, sources) for step in data["steps"])


def _compact(data: Json) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


# Making a path takes as long as looking at a file, and most of a plan's paths are one folder.
_path = functools.lru_cache(maxsize=1024)(Path)


def _step_to_json(step: Step, source: int) -> Json:
    data = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return {
        **data,
        "unkeyed": list(step.unkeyed),
        "input_files": {name: str(path) for name, path in step.input_files.items()},
        "output_files": [str(path) for path in step.output_files],
        "needs": list(step.needs),
        "source": source,
        "base": str(step.base),
    }


def _step_from_json(data: Json, sources: list[ModelSource]) -> Step:
    return Step(
        **{
            **data,
            "unkeyed": tuple(data["unkeyed"]),
            "input_files": {name: _path(path) for name, path in data["input_files"].items()},
            "output_files": tuple(map(_path, data["output_files"])),
            "needs": tuple(data["needs"]),
            "source": sources[data["source"]],
            "base": _path(data["base"]),
        }
    )


# ---------------------------------------------------------------- choosing


def selected(plans: Sequence[Plan], patterns: Sequence[str]) -> tuple[Plan, ...]:
    """The plans whose name fits one of the patterns (``*``, ``?``, ``[...]``); all without patterns.

    Raises:
        UsageError: A pattern fits none.
    """
    if not patterns:
        return tuple(plans)
    from fnmatch import fnmatchcase

    for pattern in patterns:
        if not any(fnmatchcase(plan.name, pattern) for plan in plans):
            raise UsageError(f"nothing is called {pattern!r}", hint=names_hint(plans))
    return tuple(p for p in plans if any(fnmatchcase(p.name, pattern) for pattern in patterns))


# Names that are listed in a hint.
_LISTED = 10


def names_hint(plans: Sequence[Plan]) -> str:
    """Which plans there are, in a sentence."""
    names = list(dict.fromkeys(plan.name for plan in plans))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"There are: {', '.join(names[:_LISTED])}{more}."


# ---------------------------------------------------------------- kept plans


# Plans that are kept of one recipe, by the values set for its variables.
_PLANS_A_RECIPE = 8


def compiled_plans(
    path: Path, folder: Path, *, set_vars: Mapping[str, str] | None = None
) -> tuple[Plan, ...]:
    """The plans of a recipe file, from the folder of kept plans where nothing has changed.

    There is one for each model, with each combination of the matrix. Kept plans are taken if they
    were made from the same text and values by the same stages and packages, and if the files and
    environment variables that were looked at are as they were, and patterns find what they found.
    What cannot be read is made again; where nothing can be written, nothing is kept.

    Args:
        path: The recipe.
        folder: Where plans are kept.
        set_vars: Values of variables that override the recipe's.

    Raises:
        RecipeError: The recipe is not valid.
    """
    recipe, values, kept = _place(path, folder, set_vars)
    origin = _origin(recipe, values)
    found = _read_kept(kept, origin)
    if found is None:
        return _make_kept(path, set_vars, recipe, kept, origin)
    return decode_plans(found)


def kept_plans_digest(
    path: Path, folder: Path, *, set_vars: Mapping[str, str] | None = None
) -> str | None:
    """A digest of a recipe's kept plans, None if they do not count; arguments as for `compiled_plans`."""
    recipe, values, kept = _place(path, folder, set_vars)
    found = _read_kept(kept, _origin(recipe, values))
    return None if found is None else Digest.of(found).hex


def _place(
    path: Path, folder: Path, set_vars: Mapping[str, str] | None
) -> tuple[str, list[tuple[str, str]], str]:
    """A recipe's absolute path, the values for it, and where its plans are kept."""
    values = sorted((set_vars or {}).items())
    slot = int(Digest.of(json.dumps(values).encode()).hex[:8], 16) % _PLANS_A_RECIPE
    recipe = os.path.abspath(path)
    kept = os.path.join(folder, f"{Digest.of(os.fsencode(recipe)).hex[:32]}-{slot}.json")
    return recipe, values, kept


def plans_of_no_recipe(folder: Path) -> list[Path]:
    """Files of kept plans whose recipe is gone, or that cannot be read."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            body = path.read_bytes()[64:]
            recipe = json.loads(body.partition(b"\n")[0])["recipe"]
        except (OSError, ValueError, KeyError, TypeError):
            recipe = ""
        if not os.path.exists(recipe):
            found.append(path)
    return found


def _origin(recipe: str, values: list[tuple[str, str]]) -> str:
    """A digest of what a plan is made from; what the recipe makes it depend on is kept beside it."""
    made_from = [FORMAT, recipe, values, _text_digest(recipe), _house()]
    return Digest.of(json.dumps(made_from).encode()).hex


def _text_digest(path: str) -> str:
    """A digest of a recipe's text; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return Digest.of(file.read()).hex
    except OSError:
        return ""


def _make_kept(
    path: Path, set_vars: Mapping[str, str] | None, recipe: str, kept: str, origin: str
) -> tuple[Plan, ...]:
    from freezeflow.spec.recipe import load_recipes
    from freezeflow.store.files import write_atomically

    recipes, looked = load_recipes(path, set_vars=set_vars)
    encoded = encode_plans(map(make_plan, recipes))
    # Of thousands of models what is left of the recipe is as much as their plans.
    del recipes
    plans = decode_plans(encoded)
    needs = {
        "files": looked.files,
        "environment": looked.environment,
        "texts": looked.texts,
        "globs": [[*place, digest] for place, digest in looked.globs.items()],
        "modified": _stage_files(plans),
    }
    if origin == _origin(recipe, sorted((set_vars or {}).items())):
        head = _compact({"origin": origin, "recipe": recipe, "needs": needs}) + b"\n"
        # A folder that cannot be written makes the next run slower, and no more.
        with contextlib.suppress(FreezeflowError):
            write_atomically(kept, [_check(head, encoded), head, encoded])
    return plans


def _check(head: bytes, plans: bytes) -> bytes:
    """What stands at the beginning of a file of kept plans, and tells that the rest is whole."""
    return blake3.blake3(head).update(plans).hexdigest().encode()


def _read_kept(kept: str, origin: str) -> bytes | None:
    """Kept plans, if they are whole and all that they were made from is as it was."""
    try:
        with open(kept, "rb") as file:
            check, head, plans = file.read(64), file.readline(), file.read()
    except OSError:
        return None
    if _check(head, plans) != check:
        return None
    data = json.loads(head)
    if data["origin"] != origin or data["needs"] != _as_now(data["needs"]):
        return None
    return plans


def _as_now(needs: Mapping[str, Json]) -> dict[str, Json]:
    """What a plan depends on, as it is now.

    Args:
        needs: ``files``: path to whether it exists; ``environment``: variable to its value;
            ``texts``: other recipes with a digest of each;
            ``globs``: pattern and folder with a digest of what it finds; ``modified``: path to the
            time of its last change.
    """
    return {
        "files": {path: os.path.exists(path) for path in needs["files"]},
        "environment": {name: os.environ.get(name) for name in needs["environment"]},
        "texts": {path: _text_digest(path) for path in needs["texts"]},
        "globs": _globs_now(needs["globs"]),
        "modified": {path: _modified(path) for path in needs["modified"]},
    }


def _globs_now(globs: Sequence[Sequence[str]]) -> list[list[str]]:
    if not globs:
        return []
    from freezeflow.spec.globs import digest_of, find

    return [[pattern, folder, digest_of(find(pattern, folder))] for pattern, folder, _ in globs]


def _stage_files(plans: Sequence[Plan]) -> dict[str, int]:
    """The modules of plugins that declare the plans' stages and formats, with their last change."""
    from freezeflow.stages.registry import stage_named

    modules = {
        sys.modules[part.__module__]
        for plan in plans
        for step in plan.steps
        for part in stage_named(step.stage).params_for(step.params).__mro__
    }
    files = sorted(
        file for module in modules if (file := getattr(module, "__file__", None)) is not None
    )
    return {file: _modified(file) for file in files if not file.startswith(_HOUSE)}


def _house() -> str:
    """A digest of freezeflow's own files, the installed packages, and the machine, once per process."""
    return _digest_of_house(tuple(sys.path))


@functools.cache
def _digest_of_house(search_path: tuple[str, ...]) -> str:
    own = [(file, _modified(file)) for file in _python_files()]
    packages = sorted({found for entry in search_path for found in _packages(entry)})
    # The machine belongs to the keys of some steps.
    known = [VERSION, sys.version, machine_facts(), own, packages]
    return Digest.of(json.dumps(known).encode()).hex


def _python_files() -> list[str]:
    """The files that decide what a recipe comes to, in a stable order."""
    folders = [_HOUSE, *(os.path.join(_HOUSE, name) for name in ("spec", "stages", "exports"))]
    files = [entry.path for folder in folders for entry in os.scandir(folder)]
    return sorted(file for file in files if file.endswith(".py"))


def _packages(entry: str) -> list[tuple[str, int]]:
    """The packages under one entry of the search path, with the time of their installation.

    Other files come and go there for other reasons: an entry may be the current folder.
    """
    try:
        with os.scandir(entry or os.curdir) as found:
            return [(info.path, _modified(info.path)) for info in found if _is_info(info.name)]
    except NotADirectoryError:
        return [(entry, _modified(entry))]
    except OSError:
        return []


def _is_info(name: str) -> bool:
    return name.endswith((".dist-info", ".egg-info", ".egg"))


def _modified(path: str) -> int:
    """When a file was last modified, in nanoseconds; 0 where it is gone."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
