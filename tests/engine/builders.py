"""Small stages that need no TensorFlow, and plans of them, for the engine's tests."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeflow.context import Context
from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.model import Model
from freezeflow.params import param
from freezeflow.plan import Plan, Step
from freezeflow.stages.stage import Outcome, Stage, StageInput, WrittenFile
from freezeflow.store.files import write_atomically
from freezeflow.values import Digest, DType, Location, ModelSource, TensorRef
from tests.graphs import const, model, node, placeholder, spec

WEIGHT_BYTES = 4000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """What a test stage does."""

    count: str = param("A file that gets a line every time that it runs.", default="")
    say: str = param("A line for its log.", default="")
    warn: str = param("A warning.", default="")
    seconds: float = param("How long it takes.", default=0.0)
    fail: str = param(
        "How it fails: refuse, bug, memory, kill, kill parent, exit, eat.", default=""
    )
    group: str = param("A control group whose process it becomes first.", default="")
    fail_first: int = param("It fails only the first so many times.", default=0)
    to: str = param("A file that it writes.", default="")
    rename: str = param("Renames the output.", default="")
    fold: bool = param("Adds a constant of its own.", default=False)
    threads: int = param("Changes nothing.", default=1, affects_result=False)


def run(given: StageInput, params: Params, context: Context) -> Outcome:
    """Loads, writes a file, or changes the model, as the parameters say."""
    if params.count:
        with open(context.base / params.count, "a") as file:
            file.write("ran\n")
    if params.say:
        context.log(params.say)
    if params.warn:
        context.warn(params.warn)
    if params.group:
        (Path(params.group) / "cgroup.procs").write_text(str(os.getpid()))
    time.sleep(params.seconds)
    if not params.fail_first or _lines(context.base / params.count) <= params.fail_first:
        _fail(params.fail)
    found = given.model or _load(given.source)
    if params.to:
        return Outcome(model=found, files=(_write(context.base / params.to, found),))
    if params.fold:
        found = _with_folded(found, context)
    if params.rename:
        found = _renamed(found, params.rename)
    return Outcome(model=found, facts={"outputs": 1, "share": float("nan")})


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def _fail(how: str) -> None:
    if how == "refuse":
        raise ModelRefused("this will not do", where="a/node", hint="take another")
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "memory":
        raise MemoryError
    if how == "kill":
        os.write(1, b"last words\n")
        os.kill(os.getpid(), 9)
    if how == "kill parent":
        os.kill(os.getppid(), 9)
    if how == "eat":
        assert b"x" * (2 << 30)
    if how == "exit":
        os._exit(7)


def _load(source: ModelSource) -> Model:
    """y = x + weights, with the bytes of the source's file left where they are."""
    path = source.path / "variables" / "weights"
    status = path.stat()
    size = status.st_size
    place = Location(str(path), 0, WEIGHT_BYTES, status.st_mtime_ns, size, status.st_ino)
    weight = TensorRef(Digest.of(path.read_bytes()[:WEIGHT_BYTES]), DType.FLOAT, (1000,), place)
    nodes = [
        placeholder("x", DType.FLOAT, (None, 1000)),
        _large("weights", weight),
        node("y", "AddV2", "x", "weights", T=DType.FLOAT),
    ]
    graph = Graph(nodes={n.name: n for n in nodes}, producer=1994)
    shape = (None, 1000)
    return model(
        graph, {"x": spec("x:0", shape=shape)}, {"y": spec("y:0", shape=shape)}, source_kind="test"
    )


def _large(name: str, tensor: TensorRef) -> Node:
    """A Const whose bytes are out of line."""
    empty = const(name, [0.0])
    made = attrs.message(empty.attrs["value"])
    made.tensor.ClearField("tensor_content")
    made.tensor.tensor_shape.dim[0].size = tensor.shape[0]
    return empty._replace(attrs={**empty.attrs, "value": attrs.encode(made)}, tensor=tensor)


def _with_folded(found: Model, context: Context) -> Model:
    tensor = context.put_tensor(memoryview(b"fold" * 1000), DType.FLOAT, (1000,))
    nodes = dict(found.graph.nodes)
    nodes["folded"] = _large("folded", tensor)
    nodes["y"] = nodes["y"]._replace(inputs=("x", "folded"))
    return dataclasses.replace(found, graph=dataclasses.replace(found.graph, nodes=nodes))


def _renamed(found: Model, name: str) -> Model:
    nodes = dict(found.graph.nodes)
    nodes[name] = node(name, "Identity", "y", T=DType.FLOAT)
    signature = dataclasses.replace(
        found.signatures["serving_default"], outputs={"y": spec(f"{name}:0", shape=(None, 1000))}
    )
    return dataclasses.replace(
        found,
        graph=dataclasses.replace(found.graph, nodes=nodes),
        signatures={"serving_default": signature},
    )


def _write(path: Path, found: Model) -> WrittenFile:
    tensors = [n.tensor.location for n in found.graph.nodes.values() if n.tensor is not None]
    written = write_atomically(path, [",".join(found.graph.nodes).encode(), *tensors])
    return WrittenFile(path=path, sha256=written.sha256, nbytes=written.nbytes)


def _stage(name: str, **fields: Any) -> Stage:
    return Stage(name=name, summary="", version=1, params=Params, run=run, **fields)


LOAD = _stage("test-load", role="load")
CHANGE = _stage("test-change")
CONFINED = _stage("test-confined", in_tensorflow=True)
EXPORT = _stage("test-export", role="export")
STAGES = {stage.name: stage for stage in (LOAD, CHANGE, CONFINED, EXPORT)}


def make_source(folder: Path) -> ModelSource:
    """A folder that looks like a SavedModel, old enough for the stat cache to believe."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    (folder / "variables" / "weights").write_bytes(os.urandom(WEIGHT_BYTES + 96))
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, ns=(1_600_000_000_000_000_001, 1_600_000_000_000_000_001))
    return ModelSource(kind="saved_model", path=folder)


def step(folder: Path, stage: Stage, needs: str = "", *, name: str = "", **params: Any) -> Step:
    """A step of a plan in a folder; every run of it adds a line to ``<id>.count`` there."""
    name = name or stage.name.removeprefix("test-")
    params = {"count": f"{name}.count", **params}
    return Step(
        id=name,
        stage=stage.name,
        stage_version=stage.version,
        role=stage.role,
        params=params,
        unkeyed=("threads",),
        input_files={},
        output_files=(folder / params["to"],) if "to" in params else (),
        needs=tuple(needs.split()),
        source=ModelSource(kind="saved_model", path=folder / "model"),
        base=folder,
        in_tensorflow=stage.in_tensorflow,
        reads_source=stage.reads_source,
        tools={},
    )


def plan(folder: Path, *steps: Step, name: str = "recipe") -> Plan:
    return Plan(recipe=folder / f"{name}.yaml", name=name, digest="blake3:" + "1" * 64, steps=steps)


def chain(folder: Path, **change: Any) -> Plan:
    """load > change > export; the arguments are parameters of the middle one."""
    return plan(
        folder,
        step(folder, LOAD),
        step(folder, CHANGE, "load", **{"rename": "z", **change}),
        step(folder, EXPORT, "change", to="build/out.pb"),
    )


def runs(folder: Path) -> Mapping[str, int]:
    """How often each step has run since the last call."""
    found = {}
    for path in folder.glob("*.count"):
        found[path.stem] = len(path.read_text().splitlines())
        path.unlink()
    return found
