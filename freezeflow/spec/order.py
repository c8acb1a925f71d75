"""Whether the stages of a recipe make a DAG that begins with the model: ids, needs, circles."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence

from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import shown
from freezeflow.spec.stage_list import PlacedItem, StageList, place_of
from freezeflow.spec.tree import Path_
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Json


def check_order(stages: StageList, raws: Json, notes: Notes) -> None:
    """Notes ids that are there twice, needs of unknown ids, circles, and a missing ``load``."""
    _check_ids(raws if isinstance(raws, list) else [], notes)
    _check_needs(stages, notes)
    _check_circles(stages.items, notes)
    _check_following(stages.items, notes)
    whole = isinstance(raws, list) and len(stages.items) == len(raws)
    _check_loads(stages.items, notes, whole=whole)


def _check_ids(raws: Sequence[Json], notes: Notes) -> None:
    first: dict[str, int] = {}
    for index, raw in enumerate(raws):
        identifier = raw.get("id") if isinstance(raw, dict) else None
        if not isinstance(identifier, str):
            continue
        if identifier in first:
            line = notes.document.marks["stages", first[identifier], "id"].line
            message = f"id {shown(identifier)} is there twice, first in line {line}"
            notes.add(("stages", index, "id"), message, "Give each stage an id of its own.")
        first.setdefault(identifier, index)


def _check_needs(stages: StageList, notes: Notes) -> None:
    known = {placed.item.id for placed in stages.items}
    for placed in stages.items:
        needs = placed.item.needs
        for number, need in enumerate(needs):
            if need in needs[:number]:
                notes.add(_needs_place(placed, number, notes), f"{shown(need)} is named twice")
            elif need not in known and need not in stages.lost:
                hint = did_you_mean(need, known - {placed.item.id})
                message = f"no stage has the id {shown(need)}"
                notes.add(_needs_place(placed, number, notes), message, hint)


def _needs_place(placed: PlacedItem, number: int, notes: Notes) -> Path_:
    path = ("stages", placed.index, "needs")
    return (*path, number) if (*path, number) in notes.document.marks else path


def needed_first(needs: Sequence[Collection[int]]) -> list[int]:
    """Numbers in an order in which each comes after those that it needs, if it can; else it is left out.

    Args:
        needs: For each number, those that it needs. Where there is a choice, the smallest comes first.
    """
    missing = [len(set(before)) for before in needs]
    users: dict[int, list[int]] = {}
    for number, before in enumerate(needs):
        for need in set(before):
            users.setdefault(need, []).append(number)
    ready = [number for number, count in enumerate(missing) if not count]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for user in users.get(order[-1], ()):
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    return order


def _check_circles(items: Sequence[PlacedItem], notes: Notes) -> None:
    # Of those that share an id, the first.
    numbers = {placed.item.id: number for number, placed in reversed(list(enumerate(items)))}
    needs = [_before(placed, number, numbers) for number, placed in enumerate(items)]
    if len(needed_first(needs)) == len(items):
        return
    # Only to tell of circles: it takes as much memory as thousands of models.
    import networkx

    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_edges_from((number, need) for number, before in enumerate(needs) for need in before)
    for part in networkx.strongly_connected_components(graph):
        # Edges of its own: the order of a view would depend on the hash seed.
        inner: networkx.DiGraph[int] = networkx.DiGraph(
            (number, need) for number in sorted(part) for need in graph[number] if need in part
        )
        if inner:
            circle = networkx.find_cycle(inner, min(part))
            _note_circle([items[edge[0]] for edge in circle], notes)


def _before(placed: PlacedItem, number: int, numbers: Mapping[str, int]) -> list[int]:
    """Numbers of the items that one needs."""
    if not placed.needs_given:
        return [number - 1] if number else []
    return [numbers[need] for need in placed.item.needs if need in numbers]


def _check_following(items: Sequence[PlacedItem], notes: Notes) -> None:
    """Notes what a stage cannot do behind those that it needs."""
    numbers = {placed.item.id: number for number, placed in reversed(list(enumerate(items)))}
    for number, placed in enumerate(items):
        before = [items[need].item for need in _before(placed, number, numbers)]
        if placed.item.params is None or any(item.params is None for item in before):
            continue
        found = placed.stage.following(
            placed.item.params, [(item.stage, item.params) for item in before]
        )
        for key, message in found:
            notes.add(place_of(placed, (key,), notes), message)


def _note_circle(circle: Sequence[PlacedItem], notes: Notes) -> None:
    """Tells a circle from its first stage in the file."""
    start = circle.index(min(circle, key=lambda placed: placed.index))
    circle = [*circle[start:], *circle[:start]]
    marks = notes.document.marks
    way = [f"{each.item.id} (line {marks['stages', each.index].line})" for each in circle]
    first, need = circle[0], [*circle, circle[0]][1].item.id
    message = f"the stages need each other in a circle: {' needs '.join([*way, first.item.id])}"
    place = _needs_place(first, first.item.needs.index(need), notes)
    notes.add(place, message, "Take one of these needs out.")


def _check_loads(items: Sequence[PlacedItem], notes: Notes, *, whole: bool) -> None:
    """The first stage loads the model, and no other does."""
    loads = [placed for placed in items if placed.stage.role == "load"]
    for placed in loads[1:]:
        line = notes.document.marks["stages", loads[0].index].line
        message = f"the model is loaded twice, first in line {line}"
        notes.add(("stages", placed.index), message, "A recipe has one model: take this out.")
    for placed in loads[:1]:
        if placed.needs_given:
            message = f"{placed.item.id} reads the model: nothing can come before it"
            notes.add(("stages", placed.index, "needs"), message, "Take its needs out.", key=True)
        elif whole and placed.index > 0:
            message = f"{placed.item.id} reads the model: it comes first"
            notes.add(("stages", placed.index), message, "Move it to the top of the list.")
    if items and whole and not loads:
        notes.add(("stages", 0), "nothing loads the model", "Begin with `- load`.")
