"""Measures freezeflow against a file copy and TensorFlow: ``python -m bench``; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import Contender, interleave

REPOSITORY = Path(__file__).resolve().parent.parent
# The script that users call, of the same environment.
CLI = str(Path(sys.executable).with_name("freezeflow"))
RIVALS = (sys.executable, "-m", "bench.rivals")
GIGABYTE = 1_000_000_000

# Kinds of `bench.graphs` and how many nodes they get.
GRAPHS = (
    ("wide", 1_000),
    ("wide", 10_000),
    ("wide", 100_000),
    ("wide", 200_000),
    ("nested", 100_000),
    ("repeated", 100_000),
    ("loops", 100_000),
)

# What is to be reached, by group and contender.
GOALS = {
    ("large", "freezeflow freeze"): "1.5 x cp, 120 MB",
    ("small", "freezeflow freeze"): "0.25 s, 60 MB",
    ("large graphs", "wide, 100,000 nodes"): "5 s, 600 MB",
    ("nothing to do", "freezeflow run"): "0.15 s",
}


def large(folder: Path, scale: float, rounds: int, rival_rounds: int) -> list[Contender]:
    """A model with ``scale`` GB of weights; the others are held to the copy of its weights."""
    model = folder / "large"
    build(int(scale * GIGABYTE), model)
    weights = str(model / "variables" / "variables.data-00000-of-00001")
    return [
        Contender(name="cp", command=["cp", weights, "{out}"], rounds=rounds),
        Contender(
            name="cp, sync",
            command=["sh", "-c", 'cp "$0" "$1" && sync "$1"', weights, "{out}"],
            rounds=rounds,
        ),
        Contender(
            name="freezeflow freeze",
            command=[CLI, "freeze", str(model), "-o", "{out}"],
            rounds=rounds,
        ),
        *rivals(model, rival_rounds),
    ]


def small(folder: Path, rounds: int, rival_rounds: int) -> list[Contender]:
    """A model with 16 KB of weights: what starting costs."""
    model = folder / "small"
    build(0, model)
    return [
        Contender(name="python -c pass", command=[sys.executable, "-c", "pass"], rounds=rounds),
        Contender(
            name="freezeflow freeze",
            command=[CLI, "freeze", str(model), "-o", "{out}"],
            rounds=rounds,
        ),
        *rivals(model, rival_rounds),
    ]


def nothing_to_do(folder: Path, rounds: int) -> list[Contender]:
    """The demo's recipe, all of it cached."""
    project = folder / "project"
    shutil.copytree(REPOSITORY / "pipelines", project)
    recipe = str(project / "digits.yaml")
    environment = {"FREEZEFLOW_CACHE_DIR": str(folder / "cache")}
    first = Contender(
        name="freezeflow run, first",
        command=[CLI, "run", recipe],
        rounds=1,
        environment=environment,
    )
    again = Contender(
        name="freezeflow run", command=[CLI, "run", recipe], rounds=rounds, environment=environment
    )
    python = Contender(name="python -c pass", command=[sys.executable, "-c", "pass"], rounds=rounds)
    return [python, first, again]


def graphs(folder: Path, scale: float, rounds: int) -> list[Contender]:
    """Graphs of growing size and of several shapes: the time for each node should stay the same."""
    found = []
    for kind, nodes in GRAPHS:
        count = max(1000, int(nodes * min(scale, 1.0)))
        model = folder / f"{kind}-{nodes}"
        command = [sys.executable, "-m", "bench.graphs", kind, str(count), str(model)]
        subprocess.run(command, check=True)
        freeze = [CLI, "freeze", str(model), "-o", "{out}"]
        found.append(Contender(name=f"{kind}, {count:,} nodes", command=freeze, rounds=rounds))
    return found


def rivals(model: Path, rounds: int) -> list[Contender]:
    ways = {
        "tf2": "TensorFlow: convert_variables_to_constants_v2",
        "tf1": "TensorFlow: convert_variables_to_constants (session)",
    }
    return [
        Contender(name=name, command=[*RIVALS, way, str(model), "{out}"], rounds=rounds)
        for way, name in ways.items()
        if rounds
    ]


def build(nbytes: int, folder: Path) -> None:
    command = [sys.executable, "-m", "bench.models", str(nbytes), str(folder)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


# ---------------------------------------------------------------- the table


def rows(title: str, contenders: list[Contender]) -> list[dict[str, object]]:
    """One row of figures for each contender; ratios are to the first one."""
    base = contenders[0].median().wall
    found: list[dict[str, object]] = []
    for contender in contenders:
        row: dict[str, object] = {
            "group": title,
            "name": contender.name,
            "runs": len(contender.runs),
        }
        if contender.runs:
            median = contender.median()
            row |= {
                "wall_s": round(median.wall, 3),
                "ratio": round(median.wall / base, 2),
                "cpu_s": round(median.cpu, 3),
                "peak_mb": round(median.peak / 1e6),
                "output_bytes": contender.output_bytes,
            }
        row |= {"failure": contender.failure, "goal": GOALS.get((title, contender.name), "")}
        found.append(row)
    return found


def print_table(table: list[dict[str, object]]) -> None:
    print(f"{'':53}{'wall s':>9}{'ratio':>8}{'CPU s':>9}{'peak MB':>9}  goal")
    group = None
    for row in table:
        if row["group"] != group:
            group = row["group"]
            print(group)
        figures = str(row["failure"])
        if "wall_s" in row:
            figures = f"{row['wall_s']:>9}{row['ratio']:>8}{row['cpu_s']:>9}{row['peak_mb']:>9}"
            figures += f"  {row['goal']}{row['failure']}"
        print(f"  {row['name']:51}{figures}".rstrip())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    scale = float(os.environ.get("BENCH_SCALE", "1"))
    parser.add_argument("--scale", type=float, default=scale, help="GB of weights (BENCH_SCALE)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command")
    parser.add_argument(
        "--rival-rounds", type=int, default=1, help="runs of TensorFlow's ways; 0: none"
    )
    parser.add_argument("--folder", type=Path, help="where models are built; removed afterwards")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as name:
        folder = Path(name)
        groups = {
            "large": large(folder, options.scale, options.rounds, options.rival_rounds),
            "small": small(folder, 2 * options.rounds, options.rival_rounds),
            "large graphs": graphs(folder, options.scale, max(1, options.rounds // 2)),
            "nothing to do": nothing_to_do(folder, 2 * options.rounds),
        }
        table = []
        for title, contenders in groups.items():
            interleave(contenders, folder, lambda line: print(line, file=sys.stderr))
            table += rows(title, contenders)
    print(f"{options.scale} GB of weights; medians; ratios are to the first line of each group")
    print_table(table)
    if options.json:
        data = {"format": "freezeflow.bench/1", "scale_gb": options.scale, "rows": table}
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
