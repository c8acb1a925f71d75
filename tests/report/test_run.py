from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from freezeflow.engine.events import (
    PlanEnded,
    RunEnded,
    RunStarted,
    StepEnded,
    StepStarted,
    StepWarned,
)
from freezeflow.engine.results import (
    ResultFile,
    RunResult,
    StepRef,
    StepResult,
    StepResults,
    StepStatus,
)
from freezeflow.errors import ModelRefused, StageFailed
from freezeflow.plan import Plan, Step
from freezeflow.report.batch_progress import ModelLines, tally_line
from freezeflow.report.progress import Lines
from freezeflow.report.run import render_failure, render_run, verdict_line
from freezeflow.values import ModelSource

RECIPE = Path("/nowhere/digits.yaml")


def step(name: str, needs: tuple[str, ...] = ()) -> Step:
    return Step(
        id=name,
        stage=name,
        stage_version=1,
        role="transform",
        params={},
        unkeyed=(),
        input_files={},
        output_files=(),
        needs=needs,
        source=ModelSource(kind="saved_model", path=Path("/nowhere/model")),
        base=RECIPE.parent,
        in_tensorflow=False,
        reads_source=False,
        tools={},
    )


def plan(*names: str, recipe: Path = RECIPE) -> Plan:
    chain = [step(name, names[i : i + 1]) for i, name in enumerate(names[1:])]
    steps = (step(names[0]), *chain)
    return Plan(recipe=recipe, name=recipe.stem, digest="", steps=steps)


def ended(name: str, status: StepStatus, recipe: Path = RECIPE, **more: Any) -> StepResult:
    facts = json.dumps(more.pop("facts", {}))
    ref = StepRef(recipe, recipe.stem, name)
    return StepResult(ref=ref, stage=name, status=status, facts_json=facts, **more)


VERDICT = {
    "level": "exact",
    "signatures": {
        "serving_default": {
            "calls": 1,
            "outputs": {"y": {"max_abs": 0.0}},
            "accuracy": {"labels": 64, "original": 0.984375, "result": 0.984375},
        }
    },
}


def test_a_run_as_people_see_it() -> None:
    load = {"seconds": 0.056, "nodes": 89, "model_bytes": 84_600}
    fold = {"seconds": 1.5, "nodes": 40, "model_bytes": 66_100}
    file = ResultFile(Path("/nowhere/out.pb"), "0" * 64, 65_847)
    steps = (
        ended("load", "cached", facts=load),
        ended("fold", "ran", facts=fold),
        ended("validate", "ran", facts={"seconds": 0.4, "nodes": 40, "verdict": VERDICT}),
        ended("export", "ran", facts={"seconds": 0.0, "nodes": 40}, files=(file,)),
    )
    result = RunResult(steps=StepResults.of(steps), seconds=3.2)
    lines = render_run([plan("load", "fold", "validate", "export")], result).splitlines()
    assert [line.split() for line in lines[1:6]] == [
        ["step", "time", "nodes", "bytes"],
        ["load", "cached", "89", "84.6", "KB"],
        ["fold", "ran", "1.50", "s", "89", "→", "40", "84.6", "KB", "→", "66.1", "KB"],
        ["validate", "ran", "0.40", "s", "40"],
        ["export", "ran", "0.00", "s", "40"],
    ]
    assert lines[7] == (
        "  validate  equal to the byte in 1 call;"
        " accuracy 98.4%, the same as the original's, on 64 labels"
    )
    assert lines[8] == "  export    /nowhere/out.pb  65.8 KB"
    assert lines[-1] == "Done: 3 ran, 1 cached, in 3.20 s."


def test_where_nothing_ran_that_is_said_first() -> None:
    result = RunResult(steps=StepResults.of([ended("load", "cached")]), seconds=0.01)
    assert render_run([plan("load")], result).splitlines()[0] == (
        "Nothing to do: 1 step is cached (looked up in 0.01 s)."
    )


def test_of_many_idle_recipes_only_the_sum_is_told() -> None:
    recipes = [Path(f"/nowhere/{number}.yaml") for number in range(9)]
    steps = tuple(ended("load", "cached", recipe) for recipe in recipes)
    text = render_run(
        [plan("load", recipe=recipe) for recipe in recipes],
        RunResult(steps=StepResults.of(steps), seconds=0.0),
    )
    assert text == "Nothing to do: all 9 steps are cached (looked up in 0.00 s)."


def test_a_failure_is_told_with_the_end_of_its_log() -> None:
    error = ModelRefused("no", where="a > b", hint="do this")
    log = Path("/nowhere/log.txt")
    failed = ended("load", "failed", error=error, log_end="one\ntwo", log=log)
    assert render_failure(failed).splitlines() == [
        "error: a > b: no",
        "  do this",
        "  the end of its log:",
        "  | one",
        "  | two",
        "  the whole log: /nowhere/log.txt",
    ]
    result = RunResult(steps=StepResults.of([failed, ended("fold", "skipped")]), seconds=1.0)
    assert render_run([plan("load", "fold")], result).endswith(
        "Failed: 1 failed, 1 skipped, in 1.00 s."
    )


def test_verdicts_within_a_tolerance_tell_the_largest_difference() -> None:
    outputs = {"a": {"max_abs": 1e-6}, "b": {"max_abs": 2.5e-5}, "c": {"random": True}}
    accuracy = {"labels": 10, "original": 0.9, "result": 0.8}
    found = {"calls": 4, "outputs": outputs, "accuracy": accuracy}
    assert verdict_line({"level": "served", "signatures": {"s": found}}) == (
        "within tolerance in 4 calls (largest difference 2.5e-05);"
        " accuracy 90.0% → 80.0% on 10 labels"
    )


def test_lines_count_what_is_cached_until_something_runs() -> None:
    lines: list[str] = []
    hear = Lines(lines.append)
    hear(StepEnded(result=ended("load", "cached")))
    hear(StepEnded(result=ended("freeze", "cached")))
    assert lines == []
    hear(StepStarted(ref=StepRef(RECIPE, RECIPE.stem, "fold"), stage="fold"))
    hear(StepWarned(ref=StepRef(RECIPE, RECIPE.stem, "fold"), message="mind"))
    hear(StepEnded(result=ended("fold", "failed", error=StageFailed("no"))))
    hear(StepEnded(result=ended("export", "skipped")))
    assert [" ".join(line.split()) for line in lines] == [
        "2 steps are cached",
        "digits: fold: warning: mind",
        "digits: fold FAILED",
        "digits: export skipped",
    ]


def test_models_that_were_not_reached_are_told_in_one_line() -> None:
    lines: list[str] = []
    hear = ModelLines(lines.append)
    hear(RunStarted(steps=8, plans=4))
    recipes = [Path(f"/nowhere/m{number}.yaml") for number in range(4)]
    failed = ended("load", "failed", recipes[0], error=StageFailed("no"))
    hear(PlanEnded(results=[failed, ended("freeze", "skipped", recipes[0])]))
    for recipe in recipes[1:]:
        statuses: tuple[StepStatus, ...] = ("cached", "skipped")
        hear(PlanEnded(results=[ended(s, s, recipe) for s in statuses]))
    assert tally_line(hear.tally, 0) == "4 of 4 models done, 1 failed, 3 skipped, 0 steps running"
    result = RunResult(
        steps=StepResults.of(
            [failed, *(ended("load", "skipped", recipe) for recipe in recipes[1:])]
        ),
        seconds=1.0,
    )
    hear(RunEnded(result=result))
    assert lines == ["[1/4] m0  FAILED load: no", "3 models were skipped"]
    table = render_run([plan("load", recipe=recipe) for recipe in recipes], result)
    assert "m0" in table
    assert "m1" not in table
