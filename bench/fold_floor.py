"""Folded graphs against what Grappler leaves: ``python -m bench.fold_floor [NAME or PATH ...]``.

For each model four graphs are made: frozen and stripped, the same folded by freezeflow, the frozen
one optimised by Grappler (pruning, constant folding, dependency optimisation), and folded with batch
norms. Their nodes and bytes are counted; they run in turn in one process, Grappler on and off, on the
same inputs. Their outputs are compared with the frozen graph's: by the largest difference, and, as
`validate` does at the level `exact`, with one thread and neither Grappler nor oneDNN, by the share of
elements whose bits are others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = (
    "MobileNetV2",
    "MobileNetV2, untrained",
    "ResNet50",
    "ResNet50, untrained",
    "EfficientNetV2B0",
    "DenseNet121",
    "LSTM",
    "transformer",
    "TF1 network",
    "TF1 loop",
)
Row = dict[str, Any]
EXACT = {"TF_ENABLE_ONEDNN_OPTS": "0"}


# ---------------------------------------------------------------- making the graphs


def freeze(model: Path, to: Path, *stages: tuple[str, dict[str, Any]]) -> float:
    """Freezes, strips and writes a model, with more stages before the last; seconds of these."""
    from freezeflow import api
    from freezeflow.engine.direct import run_chain
    from freezeflow.stages.registry import stage_named

    chain = [("load", {}), ("freeze", {}), ("strip", {}), *stages, ("export", {"to": str(to)})]
    built = [(stage_named(name), stage_named(name).params(**values)) for name, values in chain]
    begun: dict[str, float] = {}
    run_chain(
        api.find_source(model),
        built,
        base=Path.cwd(),
        on_stage=lambda stage: begun.setdefault(stage.name, time.perf_counter()),
    )
    times = list(begun.values())
    return times[-1] - times[3] if stages else 0.0


def grappler(frozen: Path, to: Path) -> None:
    """Grappler's `pruning`, `constfold` and `dependency` on a frozen graph."""
    import tensorflow as tf
    from tensorflow.python.grappler import tf_optimizer

    v1 = tf.compat.v1
    graph_def = v1.GraphDef.FromString(frozen.read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    signature = next(iter(signatures(frozen).values()))
    meta_graph = v1.train.export_meta_graph(graph=graph, graph_def=graph.as_graph_def())
    named = meta_graph.signature_def["serving_default"]
    for side, target in (("inputs", named.inputs), ("outputs", named.outputs)):
        for key, end in signature[side].items():
            tensor = graph.get_tensor_by_name(end["tensor"])
            target[key].name = tensor.name
            target[key].dtype = tensor.dtype.as_datatype_enum
            target[key].tensor_shape.CopyFrom(tensor.shape.as_proto())
    meta_graph.collection_def["train_op"].node_list.value.extend(manifest_of(frozen)["init"])
    config = v1.ConfigProto()
    rewriter = config.graph_options.rewrite_options
    rewriter.optimizers[:] = ["pruning", "constfold", "dependency"]
    rewriter.min_graph_nodes = -1
    optimised = tf_optimizer.OptimizeGraph(config, meta_graph)
    ends = [end["tensor"].partition(":")[0] for side in signature.values() for end in side.values()]
    ends += manifest_of(frozen)["init"]
    pruned = v1.graph_util.extract_sub_graph(optimised, sorted(set(ends)))
    to.write_bytes(pruned.SerializeToString(deterministic=True))


def manifest_of(frozen: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(frozen.with_suffix(".manifest.json").read_text())
    return found


def signatures(frozen: Path) -> dict[str, Any]:
    found: dict[str, Any] = manifest_of(frozen)["signatures"]
    return found


# ---------------------------------------------------------------- measuring


class Side:
    """One graph in a session of its own."""

    def __init__(
        self,
        path: Path,
        signature: dict[str, Any],
        *,
        optimised: bool,
        threads: int = 0,
        before_softmax: bool = False,
    ) -> None:
        import tensorflow as tf

        v1 = tf.compat.v1
        graph_def = v1.GraphDef.FromString(path.read_bytes())
        self.nodes = len(graph_def.node)
        self.in_functions = sum(len(f.node_def) for f in graph_def.library.function)
        graph = tf.Graph()
        with graph.as_default():
            tf.graph_util.import_graph_def(graph_def, name="")
        config = v1.ConfigProto(
            intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads
        )
        if not optimised:
            config.graph_options.rewrite_options.disable_meta_optimizer = True
        session = v1.Session(graph=graph, config=config)
        fetches = [graph.get_tensor_by_name(end["tensor"]) for end in signature["outputs"].values()]
        if before_softmax:
            fetches = [_without_softmax(tensor) for tensor in fetches]
        feeds = [end["tensor"] for end in signature["inputs"].values()]
        self._call = session.make_callable(fetches, feeds)
        self.times: list[float] = []

    def __call__(self, values: list[Any]) -> list[Any]:
        start = time.perf_counter()
        found: list[Any] = self._call(*values)
        self.times.append((time.perf_counter() - start) * 1000)
        return found


def _without_softmax(tensor: Any) -> Any:
    """What a last Softmax is given."""
    while tensor.op.type in ("Identity", "Softmax"):
        tensor = tensor.op.inputs[0]
    return tensor


def seeded(signature: dict[str, Any]) -> list[Any]:
    import numpy as np

    random = np.random.default_rng(1)
    values = []
    for end in signature["inputs"].values():
        shape = [16 if size is None else size for size in end["shape"] or []]
        if end["shape"] and end["shape"][0] is None:
            shape[0] = 1
        if end["dtype"] == "bool":
            values.append(np.zeros(shape, bool))
        elif end["dtype"].startswith(("int", "uint")):
            values.append(random.integers(0, 9, shape).astype(end["dtype"]))
        else:
            values.append(random.standard_normal(shape).astype(end["dtype"]))
    return values


def differing(paths: dict[str, Path], signature: dict[str, Any]) -> dict[str, float]:
    """For each graph, the share of output elements whose bits are not those of the frozen graph's.

    To be called in a process of its own, with `EXACT` in its environment: the first session decides
    how many threads all have, and oneDNN takes other kernels for a convolution by what is around it.
    With one thread and Grappler off, too, so that what differs comes from the graphs alone; before a
    last Softmax, which in an untrained network rounds every difference away.
    """
    values = seeded(signature)
    answers = {
        name: Side(path, signature, optimised=False, threads=1, before_softmax=True)(values)
        for name, path in paths.items()
    }
    return {name: _differing(answers["frozen"], found) for name, found in answers.items()}


def _differing(one: list[Any], other: list[Any]) -> float:
    import numpy as np

    count = total = 0
    for a, b in zip(one, other, strict=True):
        total += a.size
        if a.shape != b.shape or a.dtype != b.dtype:
            count += a.size
        elif a.dtype == object:
            count += int(np.sum(a != b))
        else:
            bits = f"V{a.dtype.itemsize}"
            count += int(np.sum(np.ravel(a).view(bits) != np.ravel(b).view(bits)))
    return count / max(total, 1)


def measure(paths: dict[str, Path], frozen: Path, rounds: int) -> list[Row]:
    """Nodes, bytes and, for each graph, medians of `rounds` calls with Grappler on and off."""
    import numpy as np

    signature = next(iter(signatures(frozen).values()))
    values = seeded(signature)
    rows: list[Row] = []
    sides = {
        (name, on): Side(path, signature, optimised=on)
        for name, path in paths.items()
        for on in ((True, False) if rounds else (False,))
    }
    answers = {key: side(values) for key, side in sides.items()}
    for _ in range(rounds):
        for side in sides.values():
            side(values)
    reference = answers["frozen", False]
    for name, path in paths.items():
        side = sides[name, False]
        found = answers[name, False]
        differences = [
            float(np.max(np.abs(np.float64(a) - np.float64(b)), initial=0.0))
            for a, b in zip(reference, found, strict=True)
        ]
        row: Row = {"graph": name, "nodes": side.nodes, "in_functions": side.in_functions}
        row |= {"bytes": path.stat().st_size, "max_difference": max(differences)}
        for on, label in ((True, "ms_grappler_on"), (False, "ms_grappler_off")):
            if rounds:
                row[label] = round(statistics.median(sides[name, on].times[1:]), 2)
        rows.append(row)
    return rows


# ---------------------------------------------------------------- the table


def make_graphs(name: str, folder: Path, paths: dict[str, Path]) -> float:
    """Builds the graphs of a model; seconds that the fold took."""
    model = Path(name)
    if name in NAMES:
        model = folder / "model"
        child("bench.fold_models", name, str(model))
    freeze(model, paths["frozen"])
    if "batch norms" in paths:
        freeze(model, paths["batch norms"], ("fold", {"batch_norms": True}))
    child("bench.fold_floor", "--grappler", str(paths["frozen"]), str(paths["grappler"]))
    seconds = freeze(model, paths["folded"], ("fold", {}))
    if name in NAMES:
        shutil.rmtree(model)
    return seconds


def one_model(name: str, folder: Path, rounds: int, batch_norms: bool) -> list[Row]:
    kinds = ("frozen", "grappler", "folded", *(("batch norms",) if batch_norms else ()))
    paths = {kind: folder / f"{kind.replace(' ', '_')}.pb" for kind in kinds}
    there = all(path.exists() for path in paths.values())
    seconds = None if there else make_graphs(name, folder, paths)
    rows_file = folder / "rows.json"
    child(
        "bench.fold_floor",
        *("--measure", json.dumps({k: str(p) for k, p in paths.items()}), str(rounds)),
        str(rows_file),
    )
    rows: list[Row] = json.loads(rows_file.read_text())
    child(
        "bench.fold_floor",
        *("--differing", json.dumps({k: str(p) for k, p in paths.items()}), str(rows_file)),
        **EXACT,
    )
    shares = json.loads(rows_file.read_text())
    for row in rows:
        row |= {"model": name, "differing": shares[row["graph"]]}
        if row["graph"] == "folded" and seconds is not None:
            row["fold_seconds"] = round(seconds, 2)
    return rows


def child(module: str, *arguments: str, **variables: str) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr.decode(errors="replace")[-2000:])


def print_rows(rows: list[Row]) -> None:
    for row in rows:
        figures = f"{row['nodes']:>7}{row['in_functions']:>7}{row['bytes']:>12,}"
        figures += f"{row['max_difference']:>10.2g}{row['differing']:>9.1%}"
        if "ms_grappler_on" in row:
            figures += f"{row['ms_grappler_on']:>9}{row['ms_grappler_off']:>9}"
        if "fold_seconds" in row:
            figures += f"   folded in {row['fold_seconds']} s"
        print(f"{Path(row['model']).name:24.24} {row['graph']:12}{figures}", flush=True)


@contextlib.contextmanager
def work_folder(options: argparse.Namespace, name: str) -> Iterator[Path]:
    """Where the graphs of a model are: a folder that stays, or one that does not."""
    if options.keep:
        folder: Path = options.keep / name.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="fold-", dir=options.folder) as made:
        yield Path(made)


def main() -> None:
    if sys.argv[1:2] == ["--grappler"]:
        grappler(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--differing"]:
        paths = {kind: Path(path) for kind, path in json.loads(sys.argv[2]).items()}
        shares = differing(paths, next(iter(signatures(paths["frozen"]).values())))
        Path(sys.argv[3]).write_text(json.dumps(shares))
        return
    if sys.argv[1:2] == ["--measure"]:
        paths = {kind: Path(path) for kind, path in json.loads(sys.argv[2]).items()}
        rows = measure(paths, paths["frozen"], int(sys.argv[3]))
        Path(sys.argv[4]).write_text(json.dumps(rows))
        return
    parser = argparse.ArgumentParser(prog="python -m bench.fold_floor", description=__doc__)
    parser.add_argument("models", nargs="*", default=NAMES, help="names, or paths of models")
    parser.add_argument("--rounds", type=int, default=30, help="calls of each graph; 0: only count")
    parser.add_argument("--batch-norms", action="store_true", help="a row with batch norms folded")
    parser.add_argument("--folder", type=Path, help="where models are built; removed afterwards")
    parser.add_argument(
        "--keep", type=Path, help="where graphs stay, and are found the next time, to measure again"
    )
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    print(
        f"{'model':24} {'graph':12}{'nodes':>7}{'in fn':>7}{'bytes':>12}{'max diff':>10}{'differs':>9}"
        f"{'ms on':>9}{'ms off':>9}"
    )
    rows: list[Row] = []
    for name in options.models:
        with work_folder(options, name) as folder:
            found = one_model(name, folder, options.rounds, options.batch_norms)
        print_rows(found)
        rows += found
    if options.json:
        data = {"format": "freezeflow.fold_floor/1", "rows": rows}
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
