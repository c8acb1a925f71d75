"""Many chains side by side: what befalls one befalls no other, and nothing is made twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freezeflow.engine.events import Event, RunWarned, StepEnded, StepStarted, StepWarned
from freezeflow.engine.memory import Memory, Wanted
from freezeflow.engine.options import RunOptions
from freezeflow.engine.run import run, run_plans
from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.plan import Plan
from freezeflow.store import upkeep
from freezeflow.store.key_locks import KeyLocks
from freezeflow.store.store import Store
from freezeflow.values import Digest
from tests.engine.builders import CHANGE, EXPORT, LOAD, chain, make_source, plan, runs, step
from tests.engine.test_executors import wait_until
from tests.engine.test_run import assert_clean


@pytest.fixture
def chains(tmp_path: Path) -> Callable[..., list[Plan]]:
    """Makes chains, each with a model and a folder of its own; some get parameters."""

    def make(count: int, **special: dict[str, Any]) -> list[Plan]:
        plans = []
        for number in range(count):
            folder = tmp_path / "batch" / f"m{number}"
            if not folder.exists():
                make_source(folder / "model")
            plans.append(chain(folder, **special.get(f"m{number}", {})))
        return plans

    return make


def statuses(result: Any) -> dict[str, str]:
    return {f"{s.ref.recipe.parent.name} {s.ref.step}": s.status for s in result.steps}


def counts(plans: list[Plan]) -> list[dict[str, int]]:
    return [dict(runs(each.recipe.parent)) for each in plans]


ONCE = {"load": 1, "change": 1, "export": 1}


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_chain_runs_once(chains: Any, store: Store, jobs: int) -> None:
    plans = chains(5)
    result = run_plans(plans, store, RunOptions(jobs=jobs))
    assert result.ok
    assert counts(plans) == [ONCE] * 5
    assert all(step.facts["own_peak_bytes"] >= 0 for step in result.steps)
    again = run_plans(plans, store, RunOptions(jobs=jobs))
    assert {step.status for step in again.steps} == {"cached"}
    assert_clean(store)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"fail": "kill"}, "its process was killed by SIGKILL"),
        ({"fail": "exit"}, "its process ended with code 7"),
        ({"fail": "memory"}, "ran out of memory"),
        ({"seconds": 600}, "was ended after 4 seconds"),
        ({"fail": "refuse"}, "this will not do"),
    ],
    ids=["killed", "exit", "memory", "hang", "refused"],
)
def test_what_befalls_one_step_befalls_no_other(
    chains: Any, store: Store, params: dict[str, Any], message: str
) -> None:
    plans = chains(4, m1=params)
    options = RunOptions(jobs=2, keep_going=True, step_seconds=4)
    result = run_plans(plans, store, options)
    (failed,) = result.failures
    assert str(failed.ref.recipe.parent.name) == "m1"
    assert message in failed.error.message  # type: ignore[union-attr]
    wanted = {f"m{n} {name}": "ran" for n in range(4) for name in ONCE}
    assert statuses(result) == {**wanted, "m1 change": "failed", "m1 export": "skipped"}
    assert_clean(store)
    # A later run goes on where this one came to.
    counts(plans)
    assert run_plans(chains(4), store, RunOptions(jobs=2)).ok
    assert counts(plans) == [{}, {"change": 1, "export": 1}, {}, {}]


@pytest.mark.parametrize("fail", ["kill", "exit", "memory"])
def test_a_step_whose_process_dies_is_tried_again(chains: Any, store: Store, fail: str) -> None:
    plans = chains(3, m1={"fail": fail, "fail_first": 2})
    heard: list[Event] = []
    result = run_plans(plans, store, RunOptions(jobs=2, retries=2), heard.append)
    assert result.ok
    assert counts(plans) == [ONCE, {**ONCE, "change": 3}, ONCE]
    warnings = [event.message for event in heard if isinstance(event, StepWarned)]
    assert [warning.rpartition("; ")[2] for warning in warnings] == [
        "attempt 2 of 3",
        "attempt 3 of 3",
    ]


def test_want_of_memory_costs_one_step_and_is_tried_again(
    chains: Any, store: Store, memory_group: Path
) -> None:
    """A real kill by the kernel, in a control group with little memory."""
    large = {"fail": "eat", "group": str(memory_group)}
    heard: list[Event] = []
    options = RunOptions(jobs=2, retries=1, keep_going=True)
    plans = chains(4, m1=large, m2={**large, "fail_first": 1})
    result = run_plans(plans, store, options, heard.append)
    (failed,) = result.failures
    assert failed.ref.recipe.parent.name == "m1"
    assert "ran out of memory: the kernel ended its process" in failed.error.message  # type: ignore[union-attr]
    assert counts(plans) == [ONCE, {"load": 1, "change": 2}, {**ONCE, "change": 2}, ONCE]
    warnings = [event.message for event in heard if isinstance(event, StepWarned)]
    assert [warning.rpartition("; ")[2] for warning in warnings] == ["attempt 2 of 2"] * 2
    assert_clean(store)


def test_a_full_disk_costs_what_was_to_be_written(
    chains: Any, tmp_path: Path, small_disk: Path
) -> None:
    """The cache's disk fills up in the middle of a batch; with room the same run goes on."""
    plans = chains(12)
    store = Store.open(small_disk / "cache")
    ballast = small_disk / "ballast"

    def hear(event: Event) -> None:
        if isinstance(event, StepEnded) and event.result.ref.recipe.parent.name == "m4":
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while file.write(bytes(1 << 12)):
                    file.flush()

    try:
        result = run_plans(plans, store, RunOptions(jobs=2, keep_going=True), hear)
        messages = [str(step.error) for step in result.failures]
    except FreezeflowError as error:
        messages = [str(error)]
    assert messages
    assert all("No space left" in message or "full" in message for message in messages), messages
    ballast.unlink()
    assert run_plans(plans, store, RunOptions(jobs=2)).ok
    assert upkeep.verify(store) == []
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_so_often_and_no_more(chains: Any, store: Store) -> None:
    plans = chains(2, m1={"fail": "kill"})
    result = run_plans(plans, store, RunOptions(jobs=2, retries=1, keep_going=True))
    assert len(result.failures) == 1
    assert counts(plans) == [ONCE, {"load": 1, "change": 2}]


@pytest.mark.parametrize("fail", ["refuse", "bug"])
def test_a_refusal_is_never_tried_again(chains: Any, store: Store, fail: str) -> None:
    plans = chains(2, m1={"fail": fail})
    assert not run_plans(plans, store, RunOptions(jobs=2, retries=5, keep_going=True)).ok
    assert counts(plans)[1] == {"load": 1, "change": 1}


# ---------------------------------------------------------------- memory


def wanted(**more: Any) -> Wanted:
    usual = {
        "stage": "fold",
        "in_tensorflow": True,
        "model_bytes": 1 << 30,
        "past_peak": 0,
        "attempts": 0,
    }
    return Wanted(**{**usual, **more})


def test_memory_is_shared_out() -> None:
    memory = Memory(5 << 30)
    assert memory.fits(wanted(model_bytes=100 << 30))  # alone it may try
    memory.start("one", wanted())
    assert memory.fits(wanted())
    memory.start("two", wanted())
    assert not memory.fits(wanted())
    assert memory.fits(wanted(past_peak=1 << 20))
    assert not memory.fits(wanted(past_peak=1 << 20, attempts=1))
    memory.end("one", wanted(), 1 << 20)
    assert memory.fits(wanted())


def test_memory_is_learned_from_what_steps_of_a_stage_took() -> None:
    memory = Memory(8 << 30)
    assert memory.estimate(wanted()) > 2 << 30
    memory.start("one", wanted())
    memory.end("one", wanted(), 7 << 30)
    assert memory.estimate(wanted()) == 7 << 30
    assert memory.estimate(wanted(model_bytes=1 << 29)) < 4 << 30
    assert memory.estimate(wanted(stage="validate")) < 3 << 30
    assert memory.estimate(wanted(past_peak=5)) == 5


def test_steps_wait_for_memory(chains: Any, store: Store) -> None:
    """Four steps that took 1 GiB each, with room for two: never are there more."""
    plans = chains(4)
    assert run_plans(plans, store, RunOptions(jobs=4)).ok
    store.index.write(
        "UPDATE actions SET facts = json_set(facts, '$.own_peak_bytes', ?)", [(1 << 30,)]
    )
    running: list[int] = [0]

    def hear(event: Event) -> None:
        if isinstance(event, StepStarted | StepEnded):
            running.append(running[-1] + (1 if isinstance(event, StepStarted) else -1))

    options = RunOptions(jobs=4, force=True, mem_limit=(2 << 30) + 1)
    assert run_plans(plans, store, options, hear).ok
    assert max(running) == 2


# ---------------------------------------------------------------- Ctrl-C


def test_the_first_interrupt_lets_what_runs_finish(chains: Any, store: Store) -> None:
    plans = chains(6, **{f"m{n}": {"seconds": 2} for n in range(6)})
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if isinstance(event, StepStarted) and event.ref.step == "change":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_plans(plans, store, RunOptions(jobs=1), hear)
    assert [event for event in heard if isinstance(event, RunWarned)]
    ended = [event.result for event in heard if isinstance(event, StepEnded)]
    assert {result.status for result in ended} == {"ran", "skipped"}
    assert [r.ref.step for r in ended if r.status == "ran" and r.ref.step != "load"] == ["change"]
    assert_clean(store)
    counts(plans)
    assert run_plans(plans, store, RunOptions(jobs=6)).ok
    assert sum(count.get("change", 0) for count in counts(plans)) == 5


def test_the_second_interrupt_ends_what_runs(chains: Any, store: Store) -> None:
    plans = chains(2, m0={"seconds": 600}, m1={"seconds": 600})

    def hear(event: Event) -> None:
        if isinstance(event, RunWarned) or (
            isinstance(event, StepStarted) and event.ref.step == "change"
        ):
            os.kill(os.getpid(), signal.SIGINT)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_plans(plans, store, RunOptions(jobs=1), hear)
    assert time.monotonic() - started < 30
    assert_clean(store)
    assert upkeep.verify(store) == []


# ---------------------------------------------------------------- several runs on one cache


def test_locks(tmp_path: Path) -> None:
    one, other = KeyLocks(tmp_path / "locks"), KeyLocks(tmp_path / "locks")
    key, second = Digest("a" * 64), Digest("b" * 64)
    assert one.take(key)
    assert one.take(key)
    assert not other.take(key)
    assert other.take(second)
    one.give_back(key)
    assert other.take(key)
    assert not one.take(key)
    other.close()
    assert one.take(key)
    assert (tmp_path / "locks").stat().st_size == 0
    one.close()


_SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from freezeflow.engine.options import RunOptions
from freezeflow.engine.run import run_plans
from freezeflow.store.store import Store
from tests.engine.builders import chain

folders = sorted(Path(sys.argv[1]).iterdir())
plans = [chain(folder, seconds=0.02) for folder in folders]
result = run_plans(plans, Store.open(sys.argv[2]), RunOptions(jobs=2))
print(result.ok, sorted({step.status for step in result.steps}), [str(s.model) for s in result.steps])
"""


def start(script: Path, chains_folder: Path, store: Store, tmp_path: Path) -> Any:
    paths = [str(Path(__file__).parents[2]), str(tmp_path / "plugin")]
    command = [sys.executable, str(script), str(chains_folder), str(store.folder), *paths]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("count", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_runs_side_by_side_make_each_step_once(
    chains: Any, store: Store, tmp_path: Path, count: int
) -> None:
    plans = chains(6)
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    started = [start(script, tmp_path / "batch", store, tmp_path) for _ in range(count)]
    ended = [(*process.communicate(timeout=200), process.returncode) for process in started]
    assert [error for _, error, _ in ended if error] == []
    assert {out.split(" ", 1)[0] for out, _, _ in ended} == {"True"}
    assert len({out.partition("] ")[2] for out, _, _ in ended}) == 1
    assert counts(plans) == [ONCE] * 6
    assert_clean(store)
    assert upkeep.verify(store) == []


def test_a_killed_holder_holds_nobody_up(chains: Any, store: Store, tmp_path: Path) -> None:
    chains(1)
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.replace("seconds=0.02", "seconds=600"))
    holder = start(script, tmp_path / "batch", store, tmp_path)
    counted = tmp_path / "batch" / "m0" / "change.count"
    wait_until(counted.exists)
    holder.kill()
    holder.communicate()
    (plan_,) = chains(1, m0={"seconds": 0.0})
    began = time.monotonic()
    assert run(plan_, store).ok
    assert time.monotonic() - began < 20


def test_other_work_goes_on_while_a_step_is_another_runs(
    chains: Any, store: Store, folder: Path
) -> None:
    """What is locked waits, the rest runs, and what the other run made is taken."""
    first, second = chains(2)
    locks = KeyLocks(store.folder / "key-locks")
    run(plan(first.recipe.parent, *first.steps[:1]), store)
    action = run(first, Store.open(folder / "elsewhere")).steps[1]
    counts([first])
    assert action.key is not None
    assert locks.take(action.key)
    heard: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, StepEnded):
            heard.append(f"{event.result.ref.recipe.parent.name} {event.result.ref.step}")
            if heard[-1] == "m1 export":
                locks.give_back(action.key)  # type: ignore[arg-type]

    assert run_plans([first, second], store, RunOptions(jobs=2), hear).ok
    assert heard.index("m1 export") < heard.index("m0 change")


def test_errors_of_a_dying_process_are_plain(chains: Any, store: Store) -> None:
    (failed,) = run_plans(chains(2, m0={"fail": "kill"}), store, RunOptions(jobs=2)).failures
    assert isinstance(failed.error, StageFailed)
    assert "last words" in failed.log_end


def test_branches_of_one_chain_run_apart(folder: Path, store: Store) -> None:
    steps = [
        step(folder, LOAD),
        step(folder, CHANGE, "load", name="one", rename="a", fail="kill"),
        step(folder, CHANGE, "load", name="two", rename="b"),
        step(folder, EXPORT, "two", to="build/out.pb"),
    ]
    result = run(plan(folder, *steps), store, RunOptions(jobs=2, keep_going=True))
    assert [one.status for one in result.steps] == ["ran", "failed", "ran", "ran"]
