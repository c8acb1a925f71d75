import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.engine.schedule import Schedule, State

DIAMOND = {"load": [], "left": ["load"], "right": ["load"], "join": ["left", "right"]}


def test_a_diamond_in_order() -> None:
    schedule = Schedule(DIAMOND)
    assert schedule.take() == ["load"]
    assert schedule.take() == []
    schedule.done("load")
    assert schedule.take() == ["left", "right"]
    schedule.done("right")
    assert schedule.take() == []
    schedule.done("left")
    assert schedule.take() == ["join"]
    schedule.done("join")
    assert schedule.unfinished() == []


def test_what_needs_a_failed_step_is_skipped() -> None:
    schedule = Schedule({**DIAMOND, "other": []})
    assert schedule.take() == ["load", "other"]
    schedule.done("load")
    schedule.take()
    assert schedule.failed("left") == ["join"]
    schedule.done("right")
    assert schedule.take() == []
    assert schedule.state("join") is State.SKIPPED
    assert schedule.state("right") is State.DONE


def test_skipping_takes_ready_steps_back() -> None:
    schedule = Schedule({"a": [], "b": [], "c": ["b"]})
    assert schedule.skip(["b"]) == ["b", "c"]
    assert schedule.take() == ["a"]


def test_a_need_that_comes_later_is_refused() -> None:
    with pytest.raises(ValueError, match="does not come before"):
        Schedule({"a": ["b"], "b": []})


def chain() -> Schedule[str]:
    """load > freeze > (strip, fold): all done but fold, which is taken."""
    schedule = Schedule({"load": [], "freeze": ["load"], "strip": ["freeze"], "fold": ["freeze"]})
    for step in ("load", "freeze", "strip"):
        schedule.take()
        schedule.done(step)
    assert schedule.state("fold") is State.TAKEN
    return schedule


def test_a_lost_result_is_made_again_with_all_in_between() -> None:
    schedule = chain()
    schedule.reopen("load", waiting="fold")
    assert schedule.take() == ["load"]
    assert schedule.state("strip") is State.DONE
    schedule.done("load")
    assert schedule.take() == ["freeze"]
    schedule.done("freeze")
    assert schedule.take() == ["fold"]
    schedule.done("fold")
    assert schedule.unfinished() == []


def test_a_step_that_is_ready_waits_when_its_need_is_reopened() -> None:
    schedule = Schedule({"a": [], "b": ["a"], "c": ["b"], "d": ["b"]})
    for step in ("a", "b"):
        schedule.take()
        schedule.done(step)
    assert schedule.take() == ["c", "d"]
    schedule.reopen("a", waiting="c")
    # d finds the same loss when it is started.
    schedule.reopen("a", waiting="d")
    assert schedule.take() == ["a"]
    schedule.done("a")
    assert schedule.take() == ["b"]
    schedule.done("b")
    assert schedule.take() == ["c", "d"]


@given(data=st.data(), size=st.integers(1, 12))
def test_every_step_runs_once_and_after_its_needs(data: st.DataObject, size: int) -> None:
    needs = {
        n: data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3)) if n else []
        for n in range(size)
    }
    schedule = Schedule(needs)
    running: list[int] = []
    ended: list[int] = []
    while ready := schedule.take() + running:
        running = ready
        step = running.pop(data.draw(st.integers(0, len(running) - 1)))
        assert set(needs[step]) <= set(ended)
        schedule.done(step)
        ended.append(step)
    assert sorted(ended) == list(range(size))


@given(data=st.data(), size=st.integers(1, 12))
def test_a_failure_skips_exactly_what_depends_on_it(data: st.DataObject, size: int) -> None:
    needs = {
        n: data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3)) if n else []
        for n in range(size)
    }
    bad = data.draw(st.integers(0, size - 1))
    expected: set[int] = set()
    for step, needed in needs.items():
        if bad in needed or expected.intersection(needed):
            expected.add(step)

    schedule = Schedule(needs)
    skipped: set[int] = set()
    while ready := schedule.take():
        for step in ready:
            if step == bad:
                skipped.update(schedule.failed(step))
            else:
                schedule.done(step)
    assert skipped == expected
    assert schedule.unfinished() == []
