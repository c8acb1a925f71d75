"""Many models folded, against what Grappler leaves of each: ``python -m bench.fold_many PATH ...``.

For each model: nodes (functions included) and bytes of the frozen and stripped graph, of what Grappler's
`pruning`, `constfold` and `dependency` make of it, and of the folded one; and whether the outputs have
the bits of the frozen graph's, with one thread and neither Grappler nor oneDNN. A row with more nodes or
bytes than Grappler leaves is marked.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

from bench.fold_floor import EXACT, Row, differing, freeze, grappler, signatures
from freezeflow.errors import FreezeflowError

GRAPHS = ("frozen", "grappler", "folded")


def one_model(model: Path, folder: Path) -> list[Row]:
    """Nodes, bytes and share of differing output elements of a model's three graphs."""
    import tensorflow as tf

    paths = {name: folder / f"{name}.pb" for name in GRAPHS}
    freeze(model, paths["frozen"])
    freeze(model, paths["folded"], ("fold", {}))
    rows: list[Row] = []
    for name in GRAPHS:
        if name == "grappler":
            grappler(paths["frozen"], paths[name])
        read = tf.compat.v1.GraphDef.FromString(paths[name].read_bytes())
        nodes = len(read.node) + sum(len(f.node_def) for f in read.library.function)
        rows.append({"graph": name, "nodes": nodes, "bytes": paths[name].stat().st_size})
    signature = next(iter(signatures(paths["frozen"]).values()))
    try:
        found = differing(paths, signature)
    except (tf.errors.OpError, TypeError, ValueError):
        return rows  # what cannot be called with seeded numbers is counted all the same
    for row in rows:
        row["differing"] = found[row["graph"]]
    return rows


def _in_child(model: Path, folder: Path, answer: Any) -> None:
    try:
        answer.send(one_model(model, folder))
    except (FreezeflowError, RuntimeError, ValueError) as error:
        answer.send(str(error).splitlines()[0][:120])


def isolated(model: Path, folder: Path) -> list[Row] | str:
    """The rows of a model, or why there are none; in a process of its own, which may crash."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_in_child, args=(model, folder, there))
    process.start()
    there.close()
    try:
        found: list[Row] | str = here.recv()
    except EOFError:
        found = "its process crashed"
    process.join()
    return found


def line(name: str, rows: list[Row]) -> str:
    """One row of the table."""
    text = f"{name:34.34}" + "".join(f"{row['nodes']:>7}{row['bytes']:>12,}" for row in rows)
    if "differing" in rows[0]:
        text += "".join(f"{row['differing']:>10.1%}" for row in rows[1:])
    else:
        text += f"{'not run':>20}"
    _, theirs, ours = rows
    marks = [key for key in ("nodes", "bytes") if ours[key] > theirs[key]]
    return text + (f"   more {' and '.join(marks)}" if marks else "")


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.update(EXACT)
    parser = argparse.ArgumentParser(prog="python -m bench.fold_many", description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, help="paths of models")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    head = "".join(f"{name:>10} {'bytes':>8}" for name in GRAPHS)
    print(f"{'model':34}{head}{'Grappler differs':>18} ours")
    table: dict[str, Any] = {}
    for model in options.models:
        name = model.parent.name if model.name == "artefact" else model.name
        with tempfile.TemporaryDirectory(prefix="fold-") as folder:
            found = isolated(model, Path(folder))
        table[name] = found
        print(line(name, found) if isinstance(found, list) else f"{name:34} {found}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
