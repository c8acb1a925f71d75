"""A run opens few of its plans at a time, and of those that are over little is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from freezeflow.engine import run as engine
from freezeflow.engine.events import Event, PlanEnded, RunStarted, StepEnded, StepStarted
from freezeflow.engine.options import RunOptions
from freezeflow.engine.results import StepResults
from freezeflow.engine.run import run_plans
from freezeflow.plan import Plan
from freezeflow.store.store import Store
from tests.engine.builders import CHANGE, LOAD, make_source, plan, step

MANY = 30
OPEN = 4


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_OPEN", OPEN)
    monkeypatch.setattr(engine, "_AHEAD", 7)


def plans(folder: Path, **change: dict[int, str]) -> list[Plan]:
    """Chains of two steps; `change` has a parameter's values by the number of the plan."""
    found = []
    for number in range(MANY):
        base = folder / str(number)
        if not base.exists():
            make_source(base / "model")
        params = {key: values[number] for key, values in change.items() if number in values}
        steps = step(base, LOAD), step(base, CHANGE, "load", **{"rename": "z", **params})
        found.append(plan(base, *steps, name=f"m{number}"))
    return found


def most_open(events: list[Event]) -> int:
    """How many plans were begun and not over at once, at most."""
    begun: set[tuple[object, ...]] = set()
    most = 0
    for event in events:
        if isinstance(event, StepStarted):
            begun.add(event.ref[:2])
            most = max(most, len(begun))
        elif isinstance(event, PlanEnded):
            begun.discard(event.results[0].ref[:2])
    return most


@pytest.mark.parametrize("jobs", [1, 2])
def test_few_plans_are_open_at_once(tmp_path: Path, store: Store, jobs: int) -> None:
    events: list[Event] = []
    given = plans(tmp_path)
    result = run_plans(given, store, RunOptions(jobs=jobs), events.append)
    assert events[0] == RunStarted(steps=2 * MANY, plans=MANY)
    assert result.statuses == {"ran": 2 * MANY}
    assert [step.ref for step in result.steps] == [
        (plan.recipe, plan.name, step.id) for plan in given for step in plan.steps
    ]
    assert most_open(events) <= OPEN
    over = [event.results[0].ref.plan for event in events if isinstance(event, PlanEnded)]
    assert sorted(over) == sorted(plan.name for plan in given)
    assert run_plans(given, store).is_idle


def test_what_is_cached_is_told_before_anything_runs(tmp_path: Path, store: Store) -> None:
    assert run_plans(plans(tmp_path), store).ok
    events: list[Event] = []
    changed = plans(tmp_path, rename=dict.fromkeys((3, 11, 12, 20, 28, 29), "other"))
    result = run_plans(changed, store, on_event=events.append)
    assert result.statuses == {"ran": 6, "cached": 2 * MANY - 6}
    kinds = [type(event) for event in events]
    assert kinds[: kinds.index(StepStarted)].count(PlanEnded) == MANY - 6


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("keep_going", [False, True])
def test_every_plan_is_over_once_whatever_fails(
    tmp_path: Path, store: Store, jobs: int, keep_going: bool
) -> None:
    events: list[Event] = []
    given = plans(tmp_path, fail=dict.fromkeys((2, 9), "refuse"))
    result = run_plans(given, store, RunOptions(jobs=jobs, keep_going=keep_going), events.append)
    over = [event.results[0].ref.plan for event in events if isinstance(event, PlanEnded)]
    assert sorted(over) == sorted(plan.name for plan in given)
    assert sum(isinstance(event, StepEnded) for event in events) == 2 * MANY
    failed = [step.ref.plan for step in result.failures]
    assert failed == (["m2", "m9"] if keep_going else ["m2"])
    if keep_going:
        assert result.statuses == {"ran": 2 * MANY - 2, "failed": 2}
    else:
        assert result.statuses["skipped"] > MANY
    assert [step.ref.plan for step in result.steps][::2] == [plan.name for plan in given]


def test_a_missing_model_fails_its_plan_alone(tmp_path: Path, store: Store) -> None:
    given = plans(tmp_path)
    (tmp_path / "17" / "model" / "saved_model.pb").rename(tmp_path / "gone")
    result = run_plans(given, store, RunOptions(keep_going=True))
    assert result.statuses == {"ran": 2 * MANY - 2, "failed": 1, "skipped": 1}
    assert [step.ref for step in result.failures] == [(given[17].recipe, "m17", "load")]


def test_results_are_a_sequence(tmp_path: Path, store: Store) -> None:
    results = run_plans(plans(tmp_path), store).steps
    steps = list(results)
    assert len(results) == len(steps) == 2 * MANY
    assert [results[place] for place in range(-len(steps), len(steps))] == steps * 2
    assert results[3:9] == tuple(steps[3:9])
    assert results.of_plan(steps[8].ref.recipe, "m4") == steps[8:10]
    assert list(StepResults.of(steps)) == steps
    with pytest.raises(IndexError):
        results[len(steps)]
