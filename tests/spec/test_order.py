"""The order in which stages come after those that they need."""

from __future__ import annotations

import random
import subprocess
import sys

import networkx
import pytest

from freezeflow.spec.order import needed_first


@pytest.mark.parametrize("seed", range(20))
def test_as_networkx_orders(seed: int) -> None:
    made = random.Random(seed)
    count = made.randrange(1, 30)
    places = list(range(count))
    made.shuffle(places)
    needs = [
        made.sample(
            [other for other in range(count) if places[other] < places[number]],
            made.randrange(min(places[number], 4) + 1),
        )
        for number in range(count)
    ]
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from((need, number) for number in range(count) for need in needs[number])
    assert needed_first(needs) == list(networkx.lexicographical_topological_sort(graph))


def test_a_circle_and_what_needs_it_are_left_out() -> None:
    assert needed_first([[], [2], [1], [2], [0, 0]]) == [0, 4]


def test_a_recipe_without_circles_needs_no_networkx() -> None:
    script = (
        "import sys; from freezeflow.plan import make_plan;"
        "from freezeflow.spec.recipe import load_recipes;"
        "make_plan(load_recipes('pipelines/digits.yaml').recipes[0]);"
        "print('networkx' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
