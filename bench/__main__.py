"""Measures freezeflow against others, all of it in one go: ``python -m bench``; see README.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import groups
from bench.environments import plotting
from bench.groups import REPOSITORY, Sizes
from bench.measure import Contender, interleave
from bench.page import Row, goal, machine, page, plot, print_table
from bench.serving import serving

ENVIRONMENTS = REPOSITORY / ".venv" / "bench"

Group = tuple[str, list[Contender]]


def rows(title: str, contenders: list[Contender]) -> list[Row]:
    """One row of figures for each contender; ratios are to the first one."""
    base = contenders[0].median().wall
    found: list[Row] = []
    for contender in contenders:
        row: Row = {"group": title, "name": contender.name, "runs": len(contender.runs)}
        if contender.runs:
            median = contender.median()
            row |= {
                "wall_s": round(median.wall, 3),
                "ratio": round(median.wall / base, 2),
                "cpu_s": round(median.cpu, 3),
                "peak_mb": round(median.peak / 1e6),
                "output_bytes": contender.output_bytes,
            }
        row |= {"failure": contender.failure, "goal": goal(title, contender.name)}
        found.append(row)
    return found


def plan(
    options: argparse.Namespace, folder: Path, sizes: Sizes
) -> Iterator[Callable[[], list[Group]]]:
    """What is measured, in order; each part's models are built when its turn comes."""
    parts: dict[str, Callable[[], list[Group]]] = {
        "weights": lambda: groups.weights(folder, sizes),
        "larger": lambda: groups.larger(folder, sizes),
        "small": lambda: groups.small(folder, sizes),
        "graphs": lambda: groups.graphs(folder, sizes),
        "nothing": lambda: groups.nothing_to_do(folder, options.environments, sizes),
        "something": lambda: groups.something_to_do(folder, sizes),
    }
    for name, part in parts.items():
        if not options.only or name in options.only:
            yield part


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    scale = float(os.environ.get("BENCH_SCALE", "1"))
    parser.add_argument("--scale", type=float, default=scale, help="1: the full size (BENCH_SCALE)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command")
    parser.add_argument(
        "--rival-rounds", type=int, default=1, help="runs of TensorFlow's ways; 0: none"
    )
    parser.add_argument("--only", nargs="*", help="weights larger small graphs nothing something")
    parser.add_argument("--folder", type=Path, help="where models are built; removed afterwards")
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="where other tools are installed"
    )
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--docs", type=Path, help="write benchmarks.md and its plot into a folder")
    return parser.parse_args()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measured(
    options: argparse.Namespace, folder: Path, sizes: Sizes
) -> tuple[list[Row], list[Row]]:
    """All rows of the table, and those about using what was frozen."""
    found: list[Row] = []
    used: list[Row] = []
    for part in plan(options, folder, sizes):
        for title, contenders in part():
            say(title)
            interleave(contenders, folder, lambda line: say(f"  {line}"))
            found += rows(title, contenders)
        largest = folder / "weights-1.0"
        if largest.exists():
            used = serving(folder, largest, sizes)
            for path in folder.glob("weights-*"):
                shutil.rmtree(path)
        shutil.rmtree(folder / "larger", ignore_errors=True)
    return found, used


def publish(data: dict[str, Any], options: argparse.Namespace) -> None:
    """Writes the figures, and the page with its plot, where they are wanted."""
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if not options.docs:
        return
    python = plotting(options.environments)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as results:
        json.dump(data, results)
        results.flush()
        target = options.docs / "benchmarks.svg"
        if python and plot(python, Path(results.name), target):
            data["plot"] = target.name
    (options.docs / "benchmarks.md").write_text(page(data), encoding="utf-8")


def main() -> None:
    options = arguments()
    sizes = Sizes(options.scale, options.rounds, options.rival_rounds)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as name:
        found, used = measured(options, Path(name), sizes)
    data = {
        "format": "freezeflow.bench/2",
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "scale_gb": options.scale,
        "machine": machine(),
        "plot": "",
        "rows": found,
        "serving": used,
    }
    print(f"scale {options.scale:g}; medians; ratios are to the first line of each group")
    print_table(found, used)
    publish(data, options)


if __name__ == "__main__":
    main()
