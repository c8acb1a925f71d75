"""The engine drives plans: what runs, what is cached, what happens when something breaks."""

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from freezeflow.engine import executors
from freezeflow.engine.collecting import clean
from freezeflow.engine.events import (
    Event,
    PlanEnded,
    RunEnded,
    RunStarted,
    StepEnded,
    StepStarted,
    StepWarned,
)
from freezeflow.engine.forecast import forecast
from freezeflow.engine.options import RunOptions
from freezeflow.engine.results import RunResult
from freezeflow.engine.run import run, run_plans
from freezeflow.errors import ModelRefused, StageFailed, UsageError
from freezeflow.plan import Plan
from freezeflow.store import upkeep
from freezeflow.store.collecting import Rules
from freezeflow.store.store import Store
from tests.engine.builders import (
    CHANGE,
    CONFINED,
    EXPORT,
    LOAD,
    chain,
    make_source,
    plan,
    runs,
    step,
)
from tests.store.test_store import damage

ALL = {"load": 1, "change": 1, "export": 1}


def statuses(result: RunResult) -> dict[str, str]:
    return {step.ref.step: step.status for step in result.steps}


def assert_clean(store: Store) -> None:
    """No process's leftovers."""
    scratch = store.folder / "scratch"
    assert not scratch.exists() or list(scratch.iterdir()) == []
    assert [path for path in store.folder.rglob("*") if path.name.endswith(".part")] == []


# ---------------------------------------------------------------- what runs


def test_everything_runs_once_and_then_nothing(folder: Path, store: Store) -> None:
    first = run(chain(folder), store)
    assert first.ok
    assert runs(folder) == ALL
    written = (folder / "build" / "out.pb").read_bytes()
    export = first.steps[-1]
    assert export.files == (
        (folder / "build" / "out.pb", hashlib.sha256(written).hexdigest(), len(written)),
    )
    assert_clean(store)

    second = run(chain(folder), store)

    assert runs(folder) == {}
    assert statuses(second) == dict.fromkeys(ALL, "cached")
    for cached, ran in zip(second.steps, first.steps, strict=True):
        assert dataclasses.replace(cached, status="ran") == ran


def test_facts(folder: Path, store: Store) -> None:
    facts = run(chain(folder), store).steps[1].facts
    assert facts["nodes"] == 4
    assert facts["tensor_bytes"] == 4000
    assert facts["outputs"] == 1
    assert facts["share"] == "nan"
    assert facts["seconds"] > 0
    assert facts["peak_rss_bytes"] > 1_000_000


def test_events(folder: Path, store: Store) -> None:
    events: list[Event] = []
    result = run(chain(folder, warn="mind the gap"), store, on_event=events.append)
    kinds = [type(event) for event in events]
    each = [StepStarted, StepEnded]
    assert kinds == [
        RunStarted,
        *each,
        StepStarted,
        StepWarned,
        StepEnded,
        *each,
        PlanEnded,
        RunEnded,
    ]
    warned = [event for event in events if isinstance(event, StepWarned)]
    assert warned[0].message == "mind the gap"
    assert isinstance(events[-1], RunEnded)
    assert events[-1].result == result


def test_a_changed_parameter_runs_what_needs_it(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    runs(folder)
    assert run(chain(folder, rename="other"), store).ok
    assert runs(folder) == {"change": 1, "export": 1}
    # And back: the step is known; its file has to be written again.
    assert run(chain(folder), store).ok
    assert runs(folder) == {"export": 1}


def test_a_change_that_changes_nothing_stops_there(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    runs(folder)
    assert run(chain(folder, say="hello"), store).ok
    assert runs(folder) == {"change": 1}


def test_a_parameter_that_does_not_affect_the_result(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    runs(folder)
    run(chain(folder, threads=8), store)
    assert runs(folder) == {}


def test_a_touched_source_is_hashed_and_stops_there(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    runs(folder)
    os.utime(folder / "model" / "variables" / "weights")
    assert statuses(run(chain(folder), store)) == dict.fromkeys(ALL, "cached")
    # The weights are found again where they were, although the file looks changed.
    assert run(chain(folder, rename="other"), store).ok
    assert runs(folder) == {"change": 1, "export": 1}


def test_a_changed_source_runs_everything(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    runs(folder)
    damage(folder / "model" / "variables" / "weights")
    assert run(chain(folder), store).ok
    assert runs(folder) == ALL


def test_a_new_file_in_the_source_runs_load(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    runs(folder)
    (folder / "model" / "assets").mkdir()
    (folder / "model" / "assets" / "words.txt").write_text("a")
    assert run(chain(folder), store).ok
    assert runs(folder) == {"load": 1}


@pytest.mark.parametrize("how", ["gone", "changed", "shorter"])
def test_an_export_counts_only_while_its_file_is_there(
    folder: Path, store: Store, how: str
) -> None:
    run(chain(folder), store)
    runs(folder)
    path = folder / "build" / "out.pb"
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "changed":
        damage(path)
    else:
        os.truncate(path, 3)
    assert run(chain(folder), store).ok
    assert runs(folder) == {"export": 1}
    assert path.read_bytes() == whole


def test_a_project_that_moved_keeps_its_results(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    runs(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert statuses(run(chain(moved), store)) == dict.fromkeys(ALL, "cached")
    # The weights that were adopted lie elsewhere now: load finds them again.
    assert run(chain(moved, rename="other"), store).ok
    assert runs(moved) == {"load": 1, "change": 1, "export": 1}


def test_what_is_loaded_again_costs_no_step_behind_it(folder: Path, store: Store) -> None:
    """The steps between `load` and the one that missed the weights end twice, and only they."""

    def long_chain(folder: Path, last: str) -> Plan:
        return plan(
            folder,
            step(folder, LOAD),
            step(folder, CHANGE, "load", name="a", rename="a"),
            step(folder, CHANGE, "a", name="b", rename="b"),
            step(folder, CHANGE, "b", name="c", rename=last),
            step(folder, EXPORT, "c", to="build/out.pb"),
        )

    assert run(long_chain(folder, "c"), store).ok
    runs(folder)
    moved = folder.rename(folder.with_name("moved"))
    over: list[Event] = []
    result = run(long_chain(moved, "other"), store, on_event=over.append)
    assert statuses(result) == {
        "load": "ran",
        "a": "cached",
        "b": "cached",
        "c": "ran",
        "export": "ran",
    }
    assert runs(moved) == {"load": 1, "c": 1, "export": 1}
    assert [event.results for event in over if isinstance(event, PlanEnded)] == [list(result.steps)]


def test_force_runs_everything(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    run(chain(folder), store, RunOptions(force=True))
    assert runs(folder) == dict.fromkeys(ALL, 2)


def test_only(folder: Path, store: Store) -> None:
    result = run(chain(folder), store, RunOptions(only="test-change"))
    assert statuses(result) == {"load": "ran", "change": "ran"}
    with pytest.raises(UsageError, match="no step is called") as caught:
        run(chain(folder), store, RunOptions(only="fold"))
    assert "load, change, export" in caught.value.hint


def test_plans_share_what_they_have_in_common(folder: Path, store: Store) -> None:
    plans = [
        plan(
            folder,
            step(folder, LOAD),
            step(folder, CHANGE, "load", name=name, count="change.count", rename=name),
            name=name,
        )
        for name in ("one", "two", "three")
    ]
    assert run_plans(plans, store).ok
    assert runs(folder) == {"load": 1, "change": 3}
    assert run_plans(plans, store).ok
    assert runs(folder) == {}


def test_a_constant_of_a_stage_of_its_own_is_kept(folder: Path, store: Store) -> None:
    run(chain(folder, fold=True), store)
    assert b"fold" * 1000 in (folder / "build" / "out.pb").read_bytes()
    shutil.rmtree(folder / "build")
    runs(folder)
    assert run(chain(folder, fold=True), store).ok
    assert runs(folder) == {"export": 1}
    assert b"fold" * 1000 in (folder / "build" / "out.pb").read_bytes()
    assert upkeep.verify(store) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_steps_in_this_process_and_in_others(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(executors, "TENSORFLOW_PRELOAD", ("freezeflow.engine.worker",))
    steps = [
        step(folder, LOAD),
        step(folder, CHANGE, "load", name="before", rename="a"),
        step(folder, CONFINED, "before", fold=True, count=""),
        step(folder, CHANGE, "confined", name="after", rename="b"),
        step(folder, EXPORT, "after", to="build/out.pb"),
    ]
    result = run(plan(folder, *steps), store, RunOptions(jobs=jobs, mem_limit=1 << 34))
    assert result.ok
    confinement = result.steps[2].facts["confinement"]
    assert confinement["memory_bytes"] == 1 << 34
    assert confinement["cpu_seconds"] > 4 * 3600
    assert b"fold" * 1000 in (folder / "build" / "out.pb").read_bytes()
    # The same bytes without processes.
    other = Store.open(store.folder.with_name("other"))
    alone = [dataclasses.replace(one, in_tensorflow=False) for one in steps]
    assert [one.model for one in run(plan(folder, *alone), other).steps] == [
        one.model for one in result.steps
    ]
    assert_clean(store)


def test_a_confined_step_may_not_write_elsewhere(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "TENSORFLOW_PRELOAD", ("freezeflow.engine.worker",))
    steps = [step(folder, LOAD), step(folder, CONFINED, "load", count="elsewhere.count")]
    confined = run(plan(folder, *steps), store).steps[1]
    if confined.error is None:
        assert confined.facts["confinement"]["writes"] == "not confined"
    else:
        assert "Permission denied" in confined.error.message
        assert not (folder / "elsewhere.count").exists()


# ---------------------------------------------------------------- what fails


def test_a_refusal_is_reported_and_what_follows_is_skipped(folder: Path, store: Store) -> None:
    result = run(chain(folder, fail="refuse", say="so far so good"), store)
    assert statuses(result) == {"load": "ran", "change": "failed", "export": "skipped"}
    (failed,) = result.failures
    assert isinstance(failed.error, ModelRefused)
    assert (failed.error.where, failed.error.hint) == ("a/node", "take another")
    assert failed.log_end == "so far so good"
    assert failed.log is not None
    assert failed.log.read_text() == "so far so good\n"
    assert_clean(store)


def test_a_failed_step_is_never_cached(folder: Path, store: Store) -> None:
    run(chain(folder, fail="refuse"), store)
    run(chain(folder, fail="refuse"), store)
    assert runs(folder) == {"load": 1, "change": 2}


def test_a_bug_leaves_a_report_and_one_line(folder: Path, store: Store) -> None:
    (failed,) = run(chain(folder, fail="bug"), store).failures
    assert isinstance(failed.error, StageFailed)
    assert failed.error.message == "a fault in test-change: ZeroDivisionError: a bug"
    assert failed.error.where == "recipe.yaml: change"
    (report,) = (store.folder / "crashes").iterdir()
    assert str(report) in failed.error.hint
    assert "Traceback" in report.read_text()


def test_out_of_memory(folder: Path, store: Store) -> None:
    (failed,) = run(chain(folder, fail="memory"), store).failures
    assert failed.error is not None
    assert failed.error.message == "ran out of memory"


def branches(folder: Path) -> Plan:
    return plan(
        folder,
        step(folder, LOAD),
        step(folder, CHANGE, "load", name="bad", fail="refuse"),
        step(folder, EXPORT, "bad", name="never", to="build/never.pb"),
        step(folder, CHANGE, "load", name="good"),
        step(folder, EXPORT, "good", to="build/out.pb"),
    )


def test_the_first_failure_ends_the_run(folder: Path, store: Store) -> None:
    result = run(branches(folder), store)
    assert statuses(result) == {
        "load": "ran",
        "bad": "failed",
        "never": "skipped",
        "good": "skipped",
        "export": "skipped",
    }


def test_after_a_failure_what_is_cached_is_still_told(folder: Path, store: Store) -> None:
    other = folder.with_name("other")
    make_source(other / "model")
    run(plan(other, step(other, LOAD)), store)
    runs(other)
    missing = plan(folder / "none", step(folder / "none", LOAD))
    plans = [missing, plan(folder, step(folder, LOAD)), plan(other, step(other, LOAD))]
    result = run_plans(plans, store)
    assert [step.status for step in result.steps] == ["failed", "skipped", "cached"]
    assert runs(folder) == {}


def test_keep_going_runs_the_other_branch(folder: Path, store: Store) -> None:
    result = run(branches(folder), store, RunOptions(keep_going=True))
    assert statuses(result) == {
        "load": "ran",
        "bad": "failed",
        "never": "skipped",
        "good": "ran",
        "export": "ran",
    }
    assert (folder / "build" / "out.pb").exists()


def test_a_missing_source_fails_its_step_only(folder: Path, store: Store) -> None:
    other = plan(folder.with_name("other"), step(folder.with_name("other"), LOAD))
    result = run_plans([other, chain(folder)], store, RunOptions(keep_going=True))
    assert [step.status for step in result.steps] == ["failed", "ran", "ran", "ran"]


def test_a_source_that_changes_while_load_runs(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from freezeflow.engine import worker

    real = worker.perform

    def perform(*args):  # type: ignore[no-untyped-def]
        outcome = real(*args)
        damage(folder / "model" / "variables" / "weights")
        return outcome

    monkeypatch.setattr(worker, "perform", perform)
    result = run(chain(folder), store)
    assert statuses(result) == {"load": "failed", "change": "skipped", "export": "skipped"}
    assert result.failures[0].error is not None
    assert "changed while it ran" in result.failures[0].error.message
    assert list(store.actions.files()) == []


def test_interrupted(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from freezeflow.engine import worker

    def perform(*args):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "perform", perform)
        run(chain(folder), store)
    assert_clean(store)
    assert run(chain(folder), store).ok


# ---------------------------------------------------------------- a cache that is damaged


def test_every_damaged_blob_is_a_miss_that_is_told(folder: Path, store: Store) -> None:
    run(chain(folder, say="hello", fold=True), store)
    runs(folder)
    shown = run(chain(folder, say="hello", fold=True), store)
    expected = (folder / "build" / "out.pb").read_bytes()
    blobs = sorted(store.blobs.all())
    assert len(blobs) == 6
    for digest in blobs:
        damage(store.blobs.path(digest))
        assert [found.path for found in upkeep.verify(store)] == [store.blobs.path(digest)]
        events: list[Event] = []
        result = run(chain(folder, say="hello", fold=True), store, on_event=events.append)
        assert result.ok
        warnings = [event.message for event in events if isinstance(event, StepWarned)]
        assert warnings
        assert all("damaged" in message for message in warnings)
        assert runs(folder)
        assert upkeep.verify(store) == []
        assert (folder / "build" / "out.pb").read_bytes() == expected
        assert [s.model for s in result.steps] == [s.model for s in shown.steps]


@pytest.mark.parametrize("what", ["blobs", "actions", "index.db", "scratch", "FORMAT"])
def test_a_rerun_succeeds_after_a_part_is_deleted(folder: Path, store: Store, what: str) -> None:
    run(chain(folder, fold=True), store)
    store.close()
    path = store.folder / what
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    again = Store.open(store.folder)
    assert run(chain(folder, fold=True), again).ok
    assert run(chain(folder, rename="other"), again).ok
    clean(again, Rules())
    assert upkeep.verify(again) == []


def test_a_weight_that_is_lost_while_running_is_loaded_again(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    store.index.write("DELETE FROM ranges WHERE digest != ?", [("",)])
    runs(folder)
    events: list[Event] = []
    assert run(chain(folder, rename="other"), store, on_event=events.append).ok
    assert runs(folder) == ALL
    assert any(isinstance(e, StepWarned) and "runs again" in e.message for e in events)


# ---------------------------------------------------------------- forecasts


def test_forecast_of_a_new_recipe(folder: Path, store: Store) -> None:
    found = forecast(chain(folder), store)
    assert [one.state for one in found] == ["run", "run", "run"]
    assert {one.reason for one in found} == {"it has not run before"}
    assert runs(folder) == {}


def test_forecast_of_what_is_cached(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    assert {one.state for one in forecast(chain(folder), store)} == {"cached"}


def test_forecast_tells_the_field_that_changed(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    load, change, export = forecast(chain(folder, rename="other"), store)
    assert load.state == "cached"
    assert change.state == "run"
    assert change.changes == (("params.rename", "z", "other"),)
    assert export.state == "depends"
    assert export.reason == "it needs change, which runs"
    # Told again, and still true, after it has run.
    run(chain(folder, rename="other"), store)
    _, change, _ = forecast(chain(folder), store)
    assert change.state == "cached"


def test_forecast_tells_the_file_that_changed(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    damage(folder / "model" / "variables" / "weights")
    load, *_ = forecast(chain(folder), store)
    assert [change.field for change in load.changes] == ["source.files.variables/weights"]


def test_forecast_of_a_changed_export(folder: Path, store: Store) -> None:
    run(chain(folder), store)
    (folder / "build" / "out.pb").unlink()
    *_, export = forecast(chain(folder), store)
    assert export.state == "run"
    assert "was changed or removed" in export.reason
