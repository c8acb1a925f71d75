"""Chains on pools of workers that packages offer: threads, and processes that die."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from freezeflow.engine import chain_orders
from freezeflow.engine.chain_orders import ChainResult, chain_order, read_order
from freezeflow.engine.chain_worker import probe
from freezeflow.engine.chains import run_on_pool
from freezeflow.engine.events import Event, StepEnded, StepWarned
from freezeflow.engine.options import RunOptions
from freezeflow.engine.pools import Needs, PoolFailed, check_versions, open_pool
from freezeflow.engine.results import RunResult
from freezeflow.engine.run import run
from freezeflow.errors import UsageError
from freezeflow.plan import Plan
from freezeflow.store import upkeep
from freezeflow.store.remote.options import RemoteOptions
from freezeflow.store.store import Store
from tests.engine import pools
from tests.engine.builders import CHANGE, EXPORT, LOAD, plan, runs, step

GOOD = {"one": {}, "two": {}, "three": {}}


def plans(folder: Path, models: Mapping[str, Mapping[str, object]]) -> list[Plan]:
    """A chain for each model; what it says goes to the middle step."""
    return [
        plan(
            folder,
            step(folder, LOAD, count=""),
            step(folder, CHANGE, "load", rename=name, count=f"{name}.count", **more),
            step(folder, EXPORT, "change", to=f"build/{name}.pb", count=""),
            name=name,
        )
        for name, more in models.items()
    ]


def ends(result: RunResult) -> dict[str, list[str]]:
    """How the steps of each plan ended."""
    found: dict[str, list[str]] = {}
    for each in result.steps:
        found.setdefault(each.ref.plan, []).append(each.status)
    return found


DONE = ["ran", "ran", "ran"]
FAILED = ["ran", "failed", "skipped"]


def test_chains_run_on_a_pool(folder: Path, store: Store, tmp_path: Path) -> None:
    events: list[Event] = []
    result = run_on_pool(plans(folder, GOOD), store, RunOptions(), "threads:2", events.append)
    # The load is the same for all: one of them makes it.
    assert {name: states[1:] for name, states in ends(result).items()} == dict.fromkeys(
        GOOD, DONE[1:]
    )
    assert [step.ref.plan for step in result.steps] == [n for n in GOOD for _ in range(3)]
    assert sum(isinstance(event, StepEnded) for event in events) == 9
    assert runs(folder) == dict.fromkeys(GOOD, 1)
    assert upkeep.verify(store) == []

    expected = {name: (folder / "build" / f"{name}.pb").read_bytes() for name in GOOD}
    other = Store.open(tmp_path / "other")
    for each in plans(folder, GOOD):
        assert run(each, other).ok
    assert {name: (folder / "build" / f"{name}.pb").read_bytes() for name in GOOD} == expected


def test_what_is_cached_opens_no_pool(folder: Path, store: Store) -> None:
    for each in plans(folder, GOOD):
        run(each, store)
    pools.OPENED.clear()
    result = run_on_pool(plans(folder, GOOD), store, RunOptions(), "threads")
    assert ends(result) == dict.fromkeys(GOOD, ["cached"] * 3)
    assert pools.OPENED == []
    options = RunOptions(force=True)
    assert ends(run_on_pool(plans(folder, GOOD), store, options, "threads"))["one"] == DONE
    assert pools.OPENED == [""]


@pytest.mark.parametrize("fail", ["refuse", "bug", "kill", "exit"])
def test_a_bad_chain_fails_alone(folder: Path, store: Store, fail: str) -> None:
    models = {**GOOD, "bad": {"fail": fail, "warn": "careful", "say": "words"}}
    events: list[Event] = []
    options = RunOptions(keep_going=True)
    result = run_on_pool(plans(folder, models), store, options, "threads", events.append)
    assert [step.ref.plan for step in result.failures] == ["bad"]
    assert ends(result)["bad"][1:] == FAILED[1:]
    assert all(ends(result)[name][1:] == DONE[1:] for name in GOOD)
    (failure,) = result.failures
    assert failure.error is not None
    assert failure.error.where
    if fail == "refuse":
        assert failure.error.exit_code == 5
        assert failure.log_end.startswith("words")
        assert any(isinstance(e, StepWarned) and e.message == "careful" for e in events)


def test_after_a_failure_nothing_more_begins(folder: Path, store: Store) -> None:
    models = {"bad": {"fail": "refuse"}, **GOOD}
    result = run_on_pool(plans(folder, models), store, RunOptions(), "threads:1")
    assert ends(result)["bad"] == FAILED
    assert ends(result)["three"] == ["skipped"] * 3


def test_one_that_kills_its_workers_is_blamed_alone(folder: Path, store: Store) -> None:
    """concurrent.futures loses all that is on its way when a process dies."""
    models = {"one": {}, "poison": {"fail": "kill parent"}, "two": {}}
    options = RunOptions(keep_going=True)
    result = run_on_pool(plans(folder, models), store, options, "processes:2")
    assert [step.ref.plan for step in result.failures] == ["poison"]
    assert [step.ref.step for step in result.failures] == ["change"]
    assert "its worker was lost" in result.failures[0].error.message  # type: ignore[union-attr]
    assert {*ends(result)["one"], *ends(result)["two"]} <= {"ran", "cached"}
    assert upkeep.verify(store) == []


def test_only_some_steps(folder: Path, store: Store) -> None:
    options = RunOptions(only="change")
    result = run_on_pool(plans(folder, {"one": {}}), store, options, "threads")
    assert [step.ref.step for step in result.steps] == ["load", "change"]


def test_there_is_no_such_pool(folder: Path, store: Store) -> None:
    with pytest.raises(UsageError, match="no executor 'slurm'") as caught:
        run_on_pool(plans(folder, GOOD), store, RunOptions(), "slurm:4")
    assert "threads" in caught.value.hint


def test_workers_need_the_same_versions() -> None:
    needs = Needs(versions={"numpy": "1.0", "nothing": "absent"}, mem_limit=None)
    found = probe(["numpy", "nothing"])["versions"]
    with pytest.raises(PoolFailed, match=r"a worker has numpy .*, and here it is 1\.0"):
        check_versions(needs, "a worker", found)
    check_versions(Needs(versions={"numpy": found["numpy"]}, mem_limit=None), "a worker", found)
    pool = open_pool("threads")
    with pytest.raises(PoolFailed, match="a worker of threads has numpy"):
        pool.check(needs)
    pool.close()


def test_an_order_holds_no_secret(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = RemoteOptions(url="x", trusted_keys=("k",), signing_key="hush", token="hush")
    options = RunOptions(remote=remote, keep_going=True, jobs=4)
    (one,) = plans(folder, {"one": {}})
    order = json.loads(json.dumps(chain_order(one, tmp_path, options)))
    assert "hush" not in str(order)
    monkeypatch.delenv("FREEZEFLOW_REMOTE_SIGNING_KEY", raising=False)
    monkeypatch.setenv("FREEZEFLOW_REMOTE_TOKEN", "its own")
    found, cache_dir, read = read_order(order)
    assert (found, cache_dir) == (one, tmp_path)
    expected = dataclasses.replace(remote, signing_key="", token="its own")
    assert read == dataclasses.replace(options, jobs=1, remote=expected)


def test_another_machine_has_a_cache_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = plans(folder, {"one": {}})
    order = chain_order(one, tmp_path / "callers", RunOptions())
    monkeypatch.setattr(chain_orders, "this_machine", lambda: "another")
    monkeypatch.setenv("FREEZEFLOW_CACHE_DIR", str(tmp_path / "its"))
    assert read_order(order)[1] == tmp_path / "its"
    monkeypatch.delenv("FREEZEFLOW_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert read_order(order)[1] == tmp_path / "xdg" / "freezeflow"


def test_results_pass_as_plain_data(folder: Path, store: Store) -> None:
    good = run(plans(folder, {"one": {}})[0], store)
    bad = run(plans(folder, {"bad": {"fail": "refuse", "say": "words"}})[0], store)
    for result in (good, bad):
        chain = ChainResult(steps=result.steps, warnings=(("load", "careful"),))
        again = ChainResult.from_data(json.loads(json.dumps(chain.to_data())))
        assert [str(step.error) for step in again.steps] == [str(s.error) for s in chain.steps]
        without = [dataclasses.replace(step, error=None) for step in again.steps]
        assert without == [dataclasses.replace(step, error=None) for step in chain.steps]
        assert again.warnings == chain.warnings
