"""From a recipe to the steps that have to be done: a DAG, in an order in which they can run.

A plan is plain data. It is kept beside the cache under what it was made from, so that a run in which
nothing has changed reads no YAML and checks no schema.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.errors import FreezeflowError
from freezeflow.values import Digest, Json, ModelSource
from freezeflow.version import VERSION

if TYPE_CHECKING:
    from freezeflow.spec.recipe import Recipe, StageItem

FORMAT = "freezeflow.plan/1"


@dataclasses.dataclass(frozen=True, kw_only=True)
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
        reads_source: Its result depends on the source itself, too.
        tools: Package to version, for the key.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What one recipe comes to: its steps in an order in which they can run."""

    recipe: Path
    name: str
    digest: str
    steps: tuple[Step, ...]


def make_plan(recipe: Recipe) -> Plan:
    """Orders the stages of a checked recipe and fills in what their keys need.

    Raises:
        UsageError: A stage is not there any more.
    """
    import networkx

    items = {item.id: item for item in recipe.stages}
    graph = networkx.DiGraph()
    graph.add_nodes_from(items)
    graph.add_edges_from((need, item.id) for item in recipe.stages for need in item.needs)
    places = {name: number for number, name in enumerate(items)}
    order = networkx.lexicographical_topological_sort(graph, key=places.__getitem__)
    return Plan(
        recipe=recipe.path,
        name=recipe.name,
        digest=recipe.digest,
        steps=tuple(_step(recipe, items[name]) for name in order),
    )


def _step(recipe: Recipe, item: StageItem) -> Step:
    from freezeflow.stages.params import params_to_json, paths_in, unkeyed
    from freezeflow.stages.registry import stage_named

    stage = stage_named(item.stage)
    params = params_to_json(item.params)
    paths = paths_in(stage.params, params)
    base = recipe.path.parent
    in_tensorflow = stage.in_tensorflow or (stage.role == "load" and recipe.source.needs_tensorflow)
    tools = {*stage.tools, *(("tensorflow", "keras") if in_tensorflow else ())}
    return Step(
        id=item.id,
        stage=stage.name,
        stage_version=stage.version,
        role=stage.role,
        params=params,
        unkeyed=unkeyed(stage.params),
        input_files={
            ".".join(map(str, found.path)): _absolute(base, found.text)
            for found in paths
            if not found.output
        },
        output_files=tuple(_absolute(base, found.text) for found in paths if found.output),
        needs=item.needs,
        source=recipe.source,
        base=base,
        in_tensorflow=in_tensorflow,
        reads_source=stage.reads_source,
        tools={name: _version(name) for name in sorted(tools)},
    )


def _absolute(base: Path, path: str) -> Path:
    return Path(os.path.normpath(base / path))


# Packages that bring TensorFlow under another name.
_ALSO_CALLED = {"tensorflow": ("tensorflow-cpu", "tensorflow-intel", "tf-nightly")}


def _version(package: str) -> str:
    """The version that is installed, without importing the package."""
    from importlib.metadata import PackageNotFoundError, version

    for name in (package, *_ALSO_CALLED.get(package, ())):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return "absent"


# ---------------------------------------------------------------- as JSON


def plan_to_json(plan: Plan) -> Json:
    """A plan as JSON."""
    return {
        "format": FORMAT,
        "recipe": str(plan.recipe),
        "name": plan.name,
        "digest": plan.digest,
        "steps": [_step_to_json(step) for step in plan.steps],
    }


def plan_from_json(data: Json) -> Plan:
    """The plan that `plan_to_json` described.

    Raises:
        ValueError, KeyError, TypeError: It is something else.
    """
    if data["format"] != FORMAT:
        raise ValueError(f"not a {FORMAT}")
    return Plan(
        recipe=Path(data["recipe"]),
        name=data["name"],
        digest=data["digest"],
        steps=tuple(_step_from_json(step) for step in data["steps"]),
    )


def _step_to_json(step: Step) -> Json:
    data = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return {
        **data,
        "unkeyed": list(step.unkeyed),
        "input_files": {name: str(path) for name, path in step.input_files.items()},
        "output_files": [str(path) for path in step.output_files],
        "needs": list(step.needs),
        "source": step.source.to_json(),
        "base": str(step.base),
    }


def _step_from_json(data: Json) -> Step:
    return Step(
        **{
            **data,
            "unkeyed": tuple(data["unkeyed"]),
            "input_files": {name: Path(path) for name, path in data["input_files"].items()},
            "output_files": tuple(map(Path, data["output_files"])),
            "needs": tuple(data["needs"]),
            "source": ModelSource.from_json(data["source"]),
            "base": Path(data["base"]),
        }
    )


# ---------------------------------------------------------------- kept plans


def compiled_plan(path: Path, folder: Path, *, set_vars: Mapping[str, str] | None = None) -> Plan:
    """The plan of a recipe file, from the folder of kept plans where nothing has changed.

    There is one kept plan for each recipe file and choice of variables. It counts only if everything
    that it was made from is the same: the recipe's text, the environment variables that it declares,
    which of the files that the check has looked for are there, freezeflow and Python, the source
    files of the language and of the stages, and the packages that are installed.

    Args:
        path: The recipe.
        folder: Where plans are kept.
        set_vars: Values of variables that go before the recipe's own.

    Raises:
        RecipeError: The recipe is not valid.
        UsageError: A plugin's stage cannot be had.
    """
    names = json.dumps([os.path.abspath(path), sorted((set_vars or {}).items())])
    kept = folder / f"{Digest.of(names.encode()).hex}.json"
    found = _read_kept(kept, path)
    if found is not None:
        return found
    from freezeflow.spec.recipe import load_recipe
    from freezeflow.store.files import write_atomically

    # Taken before the recipe is read: what changes in between makes the kept plan invalid.
    made_from = _made_from(path)
    recipe = load_recipe(path, set_vars=set_vars)
    plan = make_plan(recipe)
    data = {
        "plan": plan_to_json(plan),
        "made_from": made_from,
        "looked_at": recipe.dependencies,
        "stage_files": _modified(_stage_files(plan)),
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    with contextlib.suppress(FreezeflowError):  # a full disk; the plan is as good without
        write_atomically(kept, [f"{Digest.of(text)}\n".encode(), text])
    return plan


def _read_kept(kept: Path, recipe: Path) -> Plan | None:
    """A kept plan, if it is undamaged and what it was made from is the same."""
    try:
        digest, _, text = kept.read_bytes().partition(b"\n")
        if str(Digest.of(text)).encode() != digest:
            return None
        data = json.loads(text)
        if data["made_from"] != _made_from(recipe):
            return None
        if data["looked_at"] != current_dependencies(data["looked_at"]):
            return None
        if data["stage_files"] != _modified(data["stage_files"]):
            return None
        return plan_from_json(data["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _made_from(recipe: Path) -> Json:
    try:
        text = str(Digest.of(recipe.read_bytes()))
    except OSError:
        text = ""  # loading the recipe tells why
    return {"recipe": text, **_surroundings()}


@functools.cache
def _surroundings() -> dict[str, Json]:
    """What is the same for all recipes of a process."""
    here = os.path.dirname(__file__)
    folders = [os.path.join(here, name) for name in ("spec", "stages", "exports")]
    files = [e.path for folder in folders for e in os.scandir(folder) if e.name.endswith(".py")]
    return {
        "format": FORMAT,
        "freezeflow": VERSION,
        "python": sys.version,
        "own_files": _modified([__file__, *files]),
        "packages": [_packages(folder) for folder in sys.path],
    }


def _packages(folder: str) -> Json:
    """What changes when a package is installed in a folder of ``sys.path`` or taken away.

    For the current folder and the script's that is only the packages' records: other files come and
    go there for other reasons.
    """
    folder = folder or os.curdir
    if os.path.basename(folder) in ("site-packages", "dist-packages"):
        return _modified([folder])
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(name for name in names if name.endswith((".dist-info", ".egg-info")))


def _stage_files(plan: Plan) -> list[str]:
    """The source files of the stages that a plan uses; plugins' lie outside the package."""
    from freezeflow.stages.registry import stage_named

    modules = {stage_named(step.stage).run.__module__ for step in plan.steps}
    found = {getattr(sys.modules.get(name), "__file__", None) for name in modules}
    return sorted(path for path in found if path is not None)


def _modified(paths: Iterable[str]) -> dict[str, int]:
    """When each file was last modified, in nanoseconds; 0 where it is gone."""
    return {path: _modified_at(path) for path in sorted(paths)}


def _modified_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def current_dependencies(looked_at: Mapping[str, Mapping[str, Json]]) -> dict[str, dict[str, Json]]:
    """What a recipe's check has looked at, as it is now.

    Args:
        looked_at: ``files``: path to whether it is there; ``environment``: variable to its value.
    """
    return {
        "files": {path: os.path.exists(path) for path in looked_at["files"]},
        "environment": {name: os.environ.get(name) for name in looked_at["environment"]},
    }
