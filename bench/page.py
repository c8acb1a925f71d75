"""Results as a table for the terminal, and as a page for the docs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


class Table(NamedTuple):
    """Figures of another kind than those of whole processes.

    Args:
        title: What they are about.
        note: How to read them, a sentence.
        rows: One line each, the same keys in all; the first value names the line.
    """

    title: str
    note: str
    rows: list[dict[str, str | int | float]]


# What is to be reached, by a part of a group's title and of a contender's name.
GOALS = {
    ("GB, cold", "freezeflow freeze"): "1.5 x cp, 120 MB",
    ("GB, cold", "freezeflow freeze --weights external"): "1.5 x cp, 120 MB",
    ("small model", "freezeflow freeze"): "0.25 s",
    ("large graphs", "wide, 100,000 nodes"): "5 s, 600 MB",
    ("nothing to do, one", "freezeflow run"): "0.12 s",
    ("nothing to do, 1,000", "freezeflow run"): "0.6 s",
    ("nothing to do, 10,000", "freezeflow run"): "5 s, 300 MB",
}


def machine() -> list[str]:
    """What the figures belong to."""
    cpu = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    return [
        f"{os.cpu_count()} cores, {cpu}; {memory:.0f} GiB of memory; Linux {platform.release()}",
        f"Python {platform.python_version()}, TensorFlow {version('tensorflow')}",
        f"load average at the beginning (1, 5, 15 minutes): {load}",
        f"freezeflow {version('freezeflow')} at commit {_commit()}",
    ]


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def goal(group: str, name: str) -> str:
    for (part, contender), text in GOALS.items():
        if part in group and name == contender:
            return text
    return ""


def figures(row: Row) -> list[str]:
    if "wall_s" not in row:
        return ["", "", "", "", row["failure"]]
    notes = "; ".join(filter(None, (row["goal"] and f"goal: {row['goal']}", row["failure"])))
    return [
        f"{row['wall_s']:.2f}",
        f"{row['ratio']:.2f}",
        f"{row['cpu_s']:.2f}",
        f"{row['peak_mb']}",
        notes,
    ]


def print_group(rows: list[Row]) -> None:
    print(f"{rows[0]['group']:53}{'wall s':>9}{'ratio':>8}{'CPU s':>9}{'peak MB':>9}")
    for row in rows:
        wall, ratio, cpu, peak, notes = figures(row)
        line = f"  {row['name']:51}{wall:>9}{ratio:>8}{cpu:>9}{peak:>9}  {notes}"
        print(line.rstrip())
    sys.stdout.flush()


def print_table(table: Table) -> None:
    print(table.title)
    for row in table.rows:
        print("  " + "  ".join(f"{key} {_cell(value)}" for key, value in row.items()), flush=True)


def _cell(value: str | int | float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def page(data: dict[str, Any]) -> str:
    """The page, as Markdown."""
    return "\n".join(_lines(data)) + "\n"


def _lines(data: dict[str, Any]) -> Iterator[str]:
    yield "# Benchmarks: results"
    yield ""
    yield f"Written by `{data['command']}` on {data['date']}; `bench/README.md` says how to read it."
    yield ""
    yield from (f"- {line}" for line in data["machine"])
    yield ""
    yield "Whole processes, medians of runs that took turns; ratios are to a group's first line."
    if data["plot"]:
        yield ""
        yield f"![Time and memory against the size of the weights]({data['plot']})"
    group = None
    for row in data["rows"]:
        if row["group"] != group:
            group = row["group"]
            yield from ("", f"## {group[:1].upper()}{group[1:]}", "")
            yield "| | wall s | ratio | CPU s | peak MB | runs | |"
            yield "|---|---|---|---|---|---|---|"
        wall, ratio, cpu, peak, notes = figures(row)
        yield f"| {row['name']} | {wall} | {ratio} | {cpu} | {peak} | {row['runs']} | {notes} |"
    for title, note, rows in data["tables"]:
        yield from ("", f"## {title[:1].upper()}{title[1:]}", "", note, "")
        yield f"| {' | '.join(rows[0])} |"
        yield "|" + "---|" * len(rows[0])
        yield from (f"| {' | '.join(map(_cell, row.values()))} |" for row in rows)


def plot(python: str, results: Path, target: Path) -> bool:
    """Draws time and memory against the size of the weights; whether it could."""
    command = [python, str(Path(__file__).with_name("plot.py")), str(results), str(target)]
    done = subprocess.run(command, check=False)
    if done.returncode:
        print("the plot failed", file=sys.stderr)
    return done.returncode == 0
