"""Draws the plot of the results' page: ``python plot.py RESULTS.json PLOT.svg``; needs matplotlib."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import Any

import matplotlib

matplotlib.use("svg")
# The same results give the same file.
matplotlib.rcParams["svg.hashsalt"] = "freezeflow"
from matplotlib import pyplot  # noqa: E402


def points(rows: list[dict[str, Any]]) -> dict[str, list[tuple[float, float, float]]]:
    """By contender: gigabytes of weights, seconds, peak megabytes."""
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for row in rows:
        kind, _, size = row["group"].partition(", ")
        if kind == "weights" and size.endswith(" GB") and "wall_s" in row:
            found[row["name"]].append((float(size.split()[0]), row["wall_s"], row["peak_mb"]))
    return {name: sorted(line) for name, line in found.items()}


def main() -> None:
    _, results, target = sys.argv
    with open(results, encoding="utf-8") as file:
        lines = points(json.load(file)["rows"])
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for panel, column, title in zip(
        panels, (1, 2), ("wall clock, s", "peak memory, MB"), strict=True
    ):
        for name, line in lines.items():
            bold = name.startswith("freezeflow")
            panel.plot(
                [point[0] for point in line],
                [point[column] for point in line],
                marker="o",
                linewidth=2.5 if bold else 1,
                linestyle="-" if bold else "--",
                label=name,
            )
        panel.set(xscale="log", yscale="log", xlabel="weights, GB", title=title)
        panel.grid(visible=True, which="both", alpha=0.3)
    panels[1].legend(fontsize=7)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
