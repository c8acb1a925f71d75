"""From a recipe to the steps that have to be done: a DAG, in an order in which they can run.

A plan is plain data. It is kept beside the cache under what it was made from, so that a run in which
nothing has changed reads no YAML and checks no schema.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

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
    from freezeflow.stages.params import InputPath, OutputPath, params_to_json, paths_in, unkeyed
    from freezeflow.stages.registry import stage_named

    stage = stage_named(item.stage)
    params = params_to_json(item.params)
    base = recipe.path.parent
    in_tensorflow = stage.runs_apart(recipe.source)
    tools = set(stage.tools) | ({"tensorflow", "keras"} if in_tensorflow else set())
    return Step(
        id=item.id,
        stage=stage.name,
        stage_version=stage.version,
        role=stage.role,
        params=params,
        unkeyed=unkeyed(stage.params),
        input_files={
            name: _absolute(base, path)
            for name, path in paths_in(stage.params, params, InputPath).items()
        },
        output_files=tuple(
            _absolute(base, path) for path in paths_in(stage.params, params, OutputPath).values()
        ),
        needs=item.needs,
        source=recipe.source,
        base=base,
        in_tensorflow=in_tensorflow,
        reads_source=stage.reads_source,
        tools={name: _version(name) for name in sorted(tools)},
    )


def _absolute(base: Path, path: str) -> Path:
    return Path(os.path.normpath(base / path))


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


# ---------------------------------------------------------------- kept plans


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
    data["input_files"] = {name: str(path) for name, path in step.input_files.items()}
    data["output_files"] = [str(path) for path in step.output_files]
    data["source"] = step.source.to_json()
    data["base"] = str(step.base)
    return data


def _step_from_json(data: Json) -> Step:
    return Step(
        **{
            **data,
            "input_files": {name: Path(path) for name, path in data["input_files"].items()},
            "output_files": tuple(map(Path, data["output_files"])),
            "needs": tuple(data["needs"]),
            "unkeyed": tuple(data["unkeyed"]),
            "source": ModelSource.from_json(data["source"]),
            "base": Path(data["base"]),
        }
    )


def compiled_plan(path: Path, folder: Path, *, set_vars: Mapping[str, str] | None = None) -> Plan:
    """The plan of a recipe file, from the folder of kept plans where nothing has changed.

    Args:
        path: The recipe.
        folder: Where plans are kept.
        set_vars: Values of variables that override the recipe's.

    Raises:
        RecipeError: The recipe is not valid.
    """
    kept = folder / f"{_plan_name(path, set_vars or {})}.json"
    found = _read_kept(kept)
    if found is not None:
        return found
    from freezeflow.spec.recipe import load_recipe
    from freezeflow.store.files import write_atomically

    recipe = load_recipe(path, set_vars=set_vars)
    plan = make_plan(recipe)
    data = {"plan": plan_to_json(plan), "needs": recipe.dependencies}
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, [json.dumps(data, separators=(",", ":")).encode()])
    return plan


def _plan_name(path: Path, set_vars: Mapping[str, str]) -> str:
    """A digest of all that a plan is made from, except what the recipe itself tells."""
    try:
        text = path.read_bytes()
    except OSError:
        text = b""
    parts = [
        FORMAT,
        VERSION,
        str(path.absolute()),
        sorted(set_vars.items()),
        text.hex(),
        # A package that comes or goes, or a changed stage, changes a folder or a file of these.
        [_modified(entry) for entry in sys.path],
        [_modified(entry) for entry in _own_files()],
    ]
    return Digest.of(json.dumps(parts).encode()).hex


def _own_files() -> list[str]:
    stages = os.path.join(os.path.dirname(__file__), "stages")
    exports = os.path.join(os.path.dirname(__file__), "exports")
    return [
        e.path for folder in (stages, exports) for e in os.scandir(folder) if e.name[-3:] == ".py"
    ]


def _modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _read_kept(path: Path) -> Plan | None:
    """A kept plan, if the files and environment variables that it was checked against are the same."""
    try:
        data = json.loads(path.read_bytes())
        if data["needs"] != current_dependencies(data["needs"]):
            return None
        return plan_from_json(data["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def current_dependencies(needs: Mapping[str, Mapping[str, Json]]) -> dict[str, dict[str, Json]]:
    """What a recipe's check has looked at, as it is now.

    Args:
        needs: ``files``: path to whether it exists; ``environment``: variable to its value.
    """
    return {
        "files": {path: os.path.exists(path) for path in needs["files"]},
        "environment": {name: os.environ.get(name) for name in needs["environment"]},
    }
