"""Measures freezeflow against others, all of it in one go: ``python -m bench``; see README.md."""

from __future__ import annotations

import argparse
import compileall
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import groups
from bench.batch import batches
from bench.environments import plotting
from bench.groups import REPOSITORY, Group, Sizes
from bench.measure import Contender, interleave
from bench.page import Row, Table, goal, machine, page, plot, print_group, print_table
from bench.serving import one_process, serving
from bench.steps import steps

ENVIRONMENTS = REPOSITORY / ".venv" / "bench"

PARTS = ("weights", "larger", "small", "graphs", "nothing", "something", "steps", "batch")


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
) -> Iterator[tuple[str, Iterator[Group | Table]]]:
    """What is measured, in order; models are built when their turn comes."""
    parts: dict[str, Callable[[], Iterator[Group | Table]]] = {
        "weights": lambda: _weights(folder, sizes),
        "larger": lambda: _larger(folder, sizes),
        "small": lambda: groups.small(folder, sizes),
        "graphs": lambda: groups.graphs(folder, sizes),
        "nothing": lambda: groups.nothing_to_do(folder, options.environments, sizes),
        "something": lambda: groups.something_to_do(folder, sizes),
        "steps": lambda: steps(folder, sizes),
        "batch": lambda: batches(folder, sizes),
    }
    for name, part in parts.items():
        if not options.only or name in options.only:
            yield name, part()


def _weights(folder: Path, sizes: Sizes) -> Iterator[Group | Table]:
    yield from groups.weights(folder, sizes)
    # Not the largest: the first call of a graph with a gigabyte inside takes half a minute.
    yield serving(folder, groups.weights_model(folder, 0.3), 0.3 * sizes.scale, sizes)
    _remove(folder)


def _larger(folder: Path, sizes: Sizes) -> Iterator[Group | Table]:
    yield from groups.larger(folder, sizes)
    models = {
        f"{gigabytes * sizes.scale:g} GB in {variables or 'many'}": folder / "larger" / name
        for name, (gigabytes, variables) in groups.LARGER.items()
    }
    yield one_process(folder, models)
    _remove(folder)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    scale = float(os.environ.get("BENCH_SCALE", "1"))
    parser.add_argument("--scale", type=float, default=scale, help="1: the full size (BENCH_SCALE)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command")
    parser.add_argument(
        "--rival-rounds", type=int, default=1, help="runs of TensorFlow's ways; 0: none"
    )
    parser.add_argument("--only", nargs="*", choices=PARTS, help=" ".join(PARTS))
    parser.add_argument("--folder", type=Path, help="where models are built; removed afterwards")
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="where other tools are installed"
    )
    parser.add_argument("--json", type=Path, help="write the figures there, too, as they come")
    parser.add_argument(
        "--resume", action="store_true", help="begin with what that file has; no part runs twice"
    )
    parser.add_argument("--docs", type=Path, help="write benchmarks.md and its plot into a folder")
    options = parser.parse_args()
    if options.resume and not options.json:
        parser.error("--resume needs --json")
    return options


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure_all(
    options: argparse.Namespace, folder: Path, sizes: Sizes, data: dict[str, Any]
) -> None:
    """Measures part by part; what is known so far is printed, and written, at once."""
    for name, part in plan(options, folder, sizes):
        if name in data["parts"]:
            continue
        try:
            for item in part:
                _add(item, folder, data)
                if options.json:
                    write_json(options.json, data)
            data["parts"].append(name)
        except (subprocess.CalledProcessError, RuntimeError) as error:
            say(f"{name} could not be measured to its end: {error}")


def _add(item: Group | Table, folder: Path, data: dict[str, Any]) -> None:
    if isinstance(item, Table):
        data["tables"].append(item)
        print_table(item)
        return
    title, contenders = item
    say(title)
    interleave(contenders, folder, lambda line: say(f"  {line}"))
    found = rows(title, contenders)
    data["rows"] += found
    print_group(found)


def write_json(path: Path, data: dict[str, Any]) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def publish(data: dict[str, Any], options: argparse.Namespace) -> None:
    """Writes the page with its plot into a folder."""
    options.docs.mkdir(parents=True, exist_ok=True)
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
    # As after an installation: without compiled files every process compiles what it imports.
    compileall.compile_dir(REPOSITORY / "freezeflow", quiet=1)
    scale = "" if options.scale == 1 else f"BENCH_SCALE={options.scale:g} "
    data = {
        "format": "freezeflow.bench/3",
        "command": f"{scale}python -m bench {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(),
        "plot": "",
        "parts": [],
        "rows": [],
        "tables": [],
    }
    if options.resume and options.json.exists():
        data = json.loads(options.json.read_text(encoding="utf-8"))
    print(f"scale {options.scale:g}; medians; ratios are to the first line of each group")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as name:
        measure_all(options, Path(name), sizes, data)
    if options.json:
        write_json(options.json, data)
    if options.docs:
        publish(data, options)


if __name__ == "__main__":
    main()
