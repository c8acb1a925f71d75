"""When something has changed among many models, what it concerns runs, and nothing else."""

import dataclasses
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from freezeflow.engine.results import RunResult
from freezeflow.engine.run import run_plans
from freezeflow.plan import Plan
from freezeflow.store import stats
from freezeflow.store.store import Store
from tests.engine.builders import EXPORT, step
from tests.engine.test_warm_path import many

MODELS = 12


@pytest.fixture
def plans(tmp_path: Path, store: Store) -> list[Plan]:
    """Plans of six steps, all of them done."""
    plans = many(tmp_path / "many", MODELS)
    assert Counter(ran(run_plans(plans, store)).values()) == {1: 6 * MODELS}
    return plans


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read and hashed to find what has changed."""
    found: list[str] = []
    hash_open_file = stats.hash_open_file

    def noting(path: str | Path, **options: int) -> object:
        found.append(str(path))
        return hash_open_file(path, **options)

    monkeypatch.setattr(stats, "hash_open_file", noting)
    return found


def ran(result: RunResult) -> Counter[tuple[str, str]]:
    """How often each step ran, by its folder's name and its id."""
    assert result.ok
    return Counter(
        (Path(step.ref.recipe).parent.name, step.ref.step)
        for step in result.steps
        if step.status == "ran"
    )


def weights(plan: Plan) -> Path:
    return plan.steps[0].source.path / "variables" / "weights"


def test_another_parameter_of_each_last_stage_runs_these_stages(
    plans: list[Plan], store: Store, hashed: list[str]
) -> None:
    def changed(plan: Plan) -> Plan:
        base = plan.steps[-1].base
        last = step(base, EXPORT, "one", name="two", to="build/three.pb", count="")
        return dataclasses.replace(plan, steps=(*plan.steps[:-1], last))

    again = run_plans([changed(plan) for plan in plans], store)
    assert ran(again) == {(str(number), "two"): 1 for number in range(MODELS)}
    assert len(again.steps) == 6 * MODELS
    assert hashed == []


def test_a_source_that_was_touched_is_hashed_and_nothing_runs(
    plans: list[Plan], store: Store, hashed: list[str]
) -> None:
    path = weights(plans[3])
    # Long enough ago to be sure of it.
    os.utime(path, ns=(0, time.time_ns() - 10**10))
    assert not ran(run_plans(plans, store))
    assert hashed == [str(path)]
    assert not ran(run_plans(plans, store))
    assert hashed == [str(path)]


def test_a_changed_weight_runs_what_comes_from_it(plans: list[Plan], store: Store) -> None:
    path = weights(plans[5])
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)
    assert ran(run_plans(plans, store)) == {
        ("5", name): 1 for name in ("load", "a", "b", "c", "one", "two")
    }


def test_a_change_that_changes_no_model_stops_there(plans: list[Plan], store: Store) -> None:
    # Behind the bytes that the model is made of.
    with open(weights(plans[7]), "ab") as file:
        file.write(b"unused")
    found = run_plans(plans, store)
    assert ran(found) == {("7", "load"): 1}
