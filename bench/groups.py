"""What is measured against what: each function builds its models and gives its contenders."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from bench import chains
from bench.batch_models import make_models
from bench.environments import Tool, from_registry, from_system
from bench.measure import Contender, forget_cached

REPOSITORY = Path(__file__).resolve().parent.parent
# The script that users call, of the same environment.
CLI = str(Path(sys.executable).with_name("freezeflow"))
GIGABYTE = 1_000_000_000

_RIVALS = {
    "tf2": "TensorFlow: convert_variables_to_constants_v2",
    "tf1": "TensorFlow: convert_variables_to_constants (session)",
    "tool": "TensorFlow: freeze_graph",
}

# Kinds of `bench.graphs` and how many nodes they get.
_GRAPHS = (
    ("wide", 1_000),
    ("wide", 10_000),
    ("wide", 100_000),
    ("wide", 200_000),
    ("nested", 100_000),
    ("repeated", 100_000),
    ("loops", 100_000),
)

# Sizes of weights, in parts of the largest, that the plot shows.
_PARTS = (0.01, 0.1, 0.3, 1.0)

# Six stages that need no TensorFlow, so that the first run does not take hours.
_STAGES = (
    'load, freeze, strip, export: "out/{model}.pb", export: "out/{model}.pbtxt",'
    ' export: {format: saved_model, to: "out/{model}"}'
)


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        scale: 1 for the sizes that the goals are about.
        rounds: Runs of each command.
        rival_rounds: Runs of TensorFlow's ways; 0: none.
    """

    scale: float
    rounds: int
    rival_rounds: int


def weights(folder: Path, sizes: Sizes) -> list[tuple[str, list[Contender]]]:
    """Models with weights of several sizes; the others are held to the copy of the weights."""
    found = []
    for part in _PARTS:
        gigabytes = part * sizes.scale
        model = folder / f"weights-{part}"
        _build(int(gigabytes * GIGABYTE), model)
        title = f"weights, {gigabytes:g} GB"
        contenders = [*_copies(model, sizes), _freeze(model, sizes.rounds), *_rivals(model, sizes)]
        found.append((title, contenders))
    cold = functools.partial(forget_cached, model)
    contenders = [*_copies(model, sizes), _freeze(model, sizes.rounds)]
    for contender in contenders:
        contender.before = cold
    found.append((f"weights, {sizes.scale:g} GB, cold", contenders))
    return found


def larger(folder: Path, sizes: Sizes) -> list[tuple[str, list[Contender]]]:
    """Four times the weights, which one file cannot hold: external, and in a checkpoint."""
    model = folder / "larger"
    _build(int(4 * sizes.scale * GIGABYTE), model)
    external = _freeze(model, sizes.rounds)
    external.name = "freezeflow freeze --weights external"
    external.command = [*external.command, "--weights", "external"]
    recipe = folder / "larger.yaml"
    recipe.write_text(
        f"version: 1\nmodel: {{saved_model: {str(model)!r}}}\n"
        "stages: [load, freeze, strip, export: {format: saved_model, to: m, weights: checkpoint}]\n"
    )
    # With a cache that is new each time: the engine, its store and its processes included.
    script = (
        'mkdir "$0" && cp "$1" "$0/r.yaml"'
        ' && FREEZEFLOW_CACHE_DIR="$0/cache" exec "$2" run "$0/r.yaml"'
    )
    run = Contender(
        name="freezeflow run: a SavedModel's checkpoint",
        command=["sh", "-c", script, "{out}", str(recipe), CLI],
        rounds=sizes.rounds,
    )
    contenders = [*_copies(model, sizes), external, run]
    return [(f"weights, {4 * sizes.scale:g} GB", contenders)]


def small(folder: Path, sizes: Sizes) -> list[tuple[str, list[Contender]]]:
    """A model with 16 KB of weights: what starting costs."""
    model = folder / "small"
    _build(0, model)
    rounds = 2 * sizes.rounds
    return [("small model", [_python(rounds), _freeze(model, rounds), *_rivals(model, sizes)])]


def graphs(folder: Path, sizes: Sizes) -> list[tuple[str, list[Contender]]]:
    """Graphs of growing size and of several shapes: the time for each node should stay the same."""
    found = []
    for kind, nodes in _GRAPHS:
        count = max(1000, int(nodes * min(sizes.scale, 1.0)))
        model = folder / f"{kind}-{count}"
        if model.exists():
            continue
        command = [sys.executable, "-m", "bench.graphs", kind, str(count), str(model)]
        subprocess.run(command, check=True)
        contender = _freeze(model, max(1, sizes.rounds // 2))
        contender.name = f"{kind}, {count:,} nodes"
        found.append(contender)
    return [("large graphs", found)]


def nothing_to_do(
    folder: Path, environments: Path, sizes: Sizes
) -> list[tuple[str, list[Contender]]]:
    """Everything is done already: one recipe, then many models of six stages each, beside others."""
    found = [("nothing to do, one recipe", _one_recipe(folder / "project", sizes))]
    tools = {
        "make": from_system("make"),
        "doit": from_registry(environments, "doit", ["doit"]),
        "snakemake": from_registry(environments, "snakemake", ["snakemake"]),
        "dvc": from_registry(environments, "dvc", ["dvc"]),
    }
    scale = min(sizes.scale, 1.0)
    for models, names in (
        (100, ("make", "doit", "snakemake", "dvc")),
        (1_000, ("make", "doit", "snakemake")),
        (10_000, ("make",)),
    ):
        count = max(10, int(models * scale))
        group = _many_models(folder / f"models-{models}", count, sizes)
        for name in names:
            group.append(_other_tool(name, tools[name], count, folder / f"{name}-{models}", sizes))
        found.append((f"nothing to do, {count:,} models x 6", group))
    return found


def something_to_do(folder: Path, sizes: Sizes) -> list[tuple[str, list[Contender]]]:
    """A few things changed among a thousand models (of `nothing_to_do`)."""
    project = folder / "models-1000"
    models = sorted(path for path in (project / "models").iterdir() if path.name[:1] == "m")
    changed = project / "changed.yaml"
    changed.write_text(
        _recipe("models/m*").replace('saved_model, to: "out', 'saved_model, to: "new')
    )

    def touch() -> None:
        os.utime(models[0] / "saved_model.pb")

    def change() -> None:
        graph = models[1] / "saved_model.pb"
        # An unknown field: another digest, and the same model.
        graph.write_bytes(graph.read_bytes() + b"\xfa\x7f\x01x")

    contenders = [
        _run(project, "nothing", "batch.yaml", sizes.rounds),
        _run(project, "a source that was touched", "batch.yaml", sizes.rounds, touch),
        _run(project, "a source that changed", "batch.yaml", sizes.rounds, change),
        _run(project, "another path for each last stage", "changed.yaml", 1),
    ]
    return [(f"something to do, {len(models):,} models x 6", contenders)]


# ---------------------------------------------------------------- contenders


def _python(rounds: int) -> Contender:
    return Contender(name="python -c pass", command=[sys.executable, "-c", "pass"], rounds=rounds)


def _copies(model: Path, sizes: Sizes) -> list[Contender]:
    data = str(model / "variables" / "variables.data-00000-of-00001")
    synced = ["sh", "-c", 'cp "$0" "$1" && sync "$1"', data, "{out}"]
    return [
        Contender(name="cp", command=["cp", data, "{out}"], rounds=sizes.rounds),
        Contender(name="cp, sync", command=synced, rounds=sizes.rounds),
    ]


def _freeze(model: Path, rounds: int) -> Contender:
    command = [CLI, "freeze", str(model), "-o", "{out}"]
    return Contender(name="freezeflow freeze", command=command, rounds=rounds)


def _rivals(model: Path, sizes: Sizes) -> list[Contender]:
    return [
        Contender(
            name=name,
            command=[sys.executable, "-m", "bench.rivals", way, str(model), "{out}"],
            rounds=sizes.rival_rounds,
        )
        for way, name in _RIVALS.items()
        if sizes.rival_rounds
    ]


def _build(nbytes: int, folder: Path) -> None:
    command = [sys.executable, "-m", "bench.models", str(nbytes), str(folder)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def _run(project: Path, name: str, recipe: str, rounds: int, before: object = None) -> Contender:
    found = Contender(
        name=f"freezeflow run: {name}" if name else "freezeflow run",
        command=[CLI, "run", recipe],
        rounds=rounds,
        environment={"FREEZEFLOW_CACHE_DIR": str(project / "cache")},
        cwd=project,
    )
    if callable(before):
        found.before = before
    return found


def _one_recipe(project: Path, sizes: Sizes) -> list[Contender]:
    """The demo's recipe, with TensorFlow in its first run."""
    shutil.copytree(REPOSITORY / "pipelines", project)
    first = _run(project, "first", "digits.yaml", 1)
    again = _run(project, "", "digits.yaml", 2 * sizes.rounds)
    return [_python(2 * sizes.rounds), first, again]


def _recipe(models: str) -> str:
    return f"version: 1\nmodels: {models!r}\nstages: [{_STAGES}]\n"


def _many_models(project: Path, count: int, sizes: Sizes) -> list[Contender]:
    make_models(count, project / "models" / "x")
    for path in (project / "models" / "x").iterdir():
        path.rename(project / "models" / path.name)
    (project / "batch.yaml").write_text(_recipe("models/m*"))
    first = _run(project, "first", "batch.yaml", 0)
    first.run(project)
    return [_run(project, "", "batch.yaml", sizes.rounds), first]


def _other_tool(name: str, tool: Tool, count: int, folder: Path, sizes: Sizes) -> Contender:
    found = Contender(
        name=f"{name} {tool.version}".strip(), command=(), rounds=0, failure=tool.missing
    )
    if not tool.missing:
        chains.prepare(name, tool, count, folder)
        found.command = [part.replace("{program}", tool.program) for part in chains.COMMANDS[name]]
        found.rounds = max(1, sizes.rounds // 2)
        found.cwd = folder
    return found
