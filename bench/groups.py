"""What is measured against what: each function builds its models and gives its contenders."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import chains
from bench.batch_models import make_models, save_apart
from bench.environments import Tool, from_registry, from_system
from bench.measure import Contender, forget_cached

Group = tuple[str, list[Contender]]

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

# Weights beyond what one file holds: gigabytes at full scale, and in how many variables (0: of 64 MB).
LARGER = {"thirteen": (2.6, 13), "one": (2.3, 1), "many": (4.0, 0)}

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


def weights(folder: Path, sizes: Sizes) -> Iterator[Group]:
    """Models with weights of several sizes; the others are held to the copy of the weights."""
    for part in _PARTS:
        gigabytes = part * sizes.scale
        model = weights_model(folder, part)
        build(int(gigabytes * GIGABYTE), model)
        contenders = [*_copies(model, sizes), _freeze(model, sizes.rounds), *_rivals(model, sizes)]
        yield f"weights, {gigabytes:g} GB", contenders
    yield (
        f"weights, {sizes.scale:g} GB, cold",
        _cold(model, [*_copies(model, sizes), _freeze(model, sizes.rounds)]),
    )


def weights_model(folder: Path, part: float) -> Path:
    """Where the model with that part of the largest weights is."""
    return folder / f"weights-{part}"


def _cold(model: Path, contenders: list[Contender]) -> list[Contender]:
    """The contenders, before each of whose runs the model is taken out of the page cache."""
    for contender in contenders:
        contender.before = functools.partial(forget_cached, model)
    return contenders


def larger(folder: Path, sizes: Sizes) -> Iterator[Group]:
    """Weights that one file cannot hold: external, and in a checkpoint."""
    few = sizes._replace(rounds=max(1, sizes.rounds // 2))
    for name, (gigabytes, variables) in LARGER.items():
        model = folder / "larger" / name
        build(int(gigabytes * sizes.scale * GIGABYTE), model, variables)
        external = _freeze(model, few.rounds)
        external.name = "freezeflow freeze --weights external"
        external.command = [*external.command, "--weights", "external"]
        contenders = _cold(model, [*_copies(model, few), external])
        if name == "many":
            contenders.append(_into_checkpoint(folder, model, few.rounds))
        if name == "thirteen":
            contenders += _rivals(model, sizes)[:1]
        shape = f", {variables} variable{'s' * (variables > 1)}" if variables else ""
        yield f"weights, {gigabytes * sizes.scale:g} GB{shape}, cold", contenders


def _into_checkpoint(folder: Path, model: Path, rounds: int) -> Contender:
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
    found = Contender(
        name="freezeflow run: a SavedModel's checkpoint",
        command=["sh", "-c", script, "{out}", str(recipe), CLI],
        rounds=rounds,
    )
    return _cold(model, [found])[0]


def small(folder: Path, sizes: Sizes) -> Iterator[Group]:
    """A model with 16 KB of weights: what starting costs."""
    model = folder / "small"
    build(0, model)
    rounds = 2 * sizes.rounds
    yield "small model", [_python(rounds), _freeze(model, rounds), *_rivals(model, sizes)]


def graphs(folder: Path, sizes: Sizes) -> Iterator[Group]:
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
    yield "large graphs", found


def nothing_to_do(folder: Path, environments: Path, sizes: Sizes) -> Iterator[Group]:
    """Everything is done already: one recipe, then many models of six stages each, beside others."""
    yield "nothing to do, one recipe", _one_recipe(folder / "project", sizes)
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
        yield f"nothing to do, {count:,} models x 6", group


def something_to_do(folder: Path, sizes: Sizes) -> Iterator[Group]:
    """A few things changed among a thousand models (of `nothing_to_do`)."""
    project = folder / "models-1000"
    if not project.exists():
        _many_models(project, max(10, int(1_000 * min(sizes.scale, 1.0))), sizes)
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

    others = [
        save_apart(project / "weights" / str(seed), seed) for seed in range(1, sizes.rounds + 1)
    ]
    weights = iter(others)

    def train() -> None:
        # Other weights each time: a model that was there before has its results still.
        shutil.copytree(next(weights) / "variables", models[2] / "variables", dirs_exist_ok=True)

    contenders = [
        _run(project, "nothing", "batch.yaml", sizes.rounds),
        _run(project, "a source that was touched", "batch.yaml", sizes.rounds, touch),
        _run(project, "a graph that changed", "batch.yaml", sizes.rounds, change),
        _run(project, "weights that changed", "batch.yaml", sizes.rounds, train),
        _run(project, "another path for each last stage", "changed.yaml", 1),
    ]
    yield f"something to do, {len(models):,} models x 6", contenders


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


def build(nbytes: int, folder: Path, variables: int = 0) -> None:
    command = [sys.executable, "-m", "bench.models", str(nbytes), str(folder), str(variables)]
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
