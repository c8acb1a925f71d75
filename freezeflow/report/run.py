"""How a run ended: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from freezeflow.engine.results import RunResult, StepResult, StepStatus
from freezeflow.plan import Plan
from freezeflow.report.errors import error_to_json, render_error
from freezeflow.report.text import count, paint, seconds, short_path, size, table
from freezeflow.values import Json

FORMAT = "freezeflow.run/2"

_STATUSES: tuple[StepStatus, ...] = ("ran", "cached", "failed", "skipped")

_COLORS = {"cached": "dim", "ran": "green", "failed": "red", "skipped": "yellow"}

# With more plans than this, those in which nothing ran get no table.
FEW_PLANS = 3


def render_run(plans: Sequence[Plan], result: RunResult, *, color: bool = False) -> str:
    """A table of each recipe's steps with what came of it, and a line that sums up."""
    parts = []
    if result.is_idle:
        parts.append(render_nothing_to_do(len(result.steps), result.seconds, color=color))
    if len(plans) > FEW_PLANS:
        rows = list(_models(result, color))
        parts.append(table(rows, indent="  ", right=(2,)) if len(rows) > 1 else "")
    else:
        found = ((plan, result.steps.of_plan(plan.recipe, plan.name)) for plan in plans)
        parts += [_recipe(plan, steps, color) for plan, steps in found if steps]
    if not result.is_idle:
        parts.append(_sum(result, color))
    return "\n\n".join(filter(None, parts))


def _models(result: RunResult, color: bool) -> Iterator[list[str]]:
    """A head, and a row for each of many models in which something ran."""
    yield [paint(word, "dim", color=color) for word in ("model", "", "time", "files")]
    if not result.is_idle:
        busy = (steps for steps in result.steps.by_plan() if any(map(_has_run, steps)))
        yield from (_model(steps, color) for steps in busy)


def _model(steps: Sequence[StepResult], color: bool) -> list[str]:
    """What came of a model, how long that took, and its files."""
    statuses = {step.status for step in steps}
    worst = next(word for word in ("failed", "skipped", "ran") if word in statuses)
    took = sum(step.facts["seconds"] for step in steps if step.status == "ran")
    failed = next((step for step in steps if step.error is not None), None)
    if failed is not None and failed.error is not None:
        what = f"{failed.ref.step}: {failed.error.message.partition(chr(10))[0]}"
    else:
        files = [step.files[0] for step in steps if step.files]
        what = ", ".join(f"{short_path(file.path)}  {size(file.nbytes)}" for file in files)
    mark = paint(worst, _COLORS[worst], color=color)
    return [steps[0].ref.plan, mark, seconds(took) if took else "", what]


def _has_run(step: StepResult) -> bool:
    return step.status in ("ran", "failed")


def render_nothing_to_do(steps: int, took: float, *, color: bool = False) -> str:
    """``Nothing to do: all 6 steps are cached (looked up in 4 ms).``"""
    head = paint("Nothing to do:", "bold", color=color)
    if not steps:
        return f"{head} no model is selected."
    every = "all " if steps > 1 else ""
    what = count(steps, "step is", "steps are")
    return f"{head} {every}{what} cached (looked up in {seconds(took)})."


def _sum(result: RunResult, color: bool) -> str:
    counted = [
        paint(f"{result.statuses[status]} {status}", _COLORS[status], color=color)
        for status in _STATUSES
        if status in result.statuses
    ]
    head = paint("Done:" if result.ok else "Failed:", "bold", color=color)
    return f"{head} {', '.join(counted)}, in {seconds(result.seconds)}."


def _recipe(plan: Plan, steps: Sequence[StepResult], color: bool) -> str:
    facts = {step.ref.step: step.facts for step in steps}
    head = f"{paint(plan.name, 'bold', color=color)}  {short_path(plan.recipe)}"
    rows = table(_rows(plan, steps, facts, color), indent="  ", right=(2,))
    results = table(_results(steps, facts, color), indent="  ")
    return "\n".join(filter(None, [head, rows, results and f"\n{results}"]))


def _rows(
    plan: Plan, steps: Sequence[StepResult], facts: Mapping[str, Mapping[str, Json]], color: bool
) -> Iterator[list[str]]:
    yield [paint(word, "dim", color=color) for word in ("step", "", "time", "nodes", "bytes")]
    needs = {step.id: step.needs for step in plan.steps}
    for step in steps:
        name = step.ref.step
        before = next((facts[need] for need in needs[name] if need in facts), {})
        yield [
            name,
            paint(step.status, _COLORS[step.status], color=color),
            seconds(facts[name]["seconds"]) if step.status == "ran" else "",
            _change(before.get("nodes"), facts[name].get("nodes"), "{:,}".format),
            _change(before.get("model_bytes"), facts[name].get("model_bytes"), size),
        ]


def _change(before: int | None, after: int | None, form: Callable[[int], str]) -> str:
    """``83 → 40``; only one figure where nothing changed, none where none is known."""
    if after is None:
        return ""
    if before is None or before == after:
        return form(after)
    return f"{form(before)} → {form(after)}"


def _results(
    steps: Sequence[StepResult], facts: Mapping[str, Mapping[str, Json]], color: bool
) -> Iterator[list[str]]:
    """Verdicts, files, and what went wrong."""
    for step in steps:
        name = step.ref.step
        if step.error is not None:
            message = step.error.message.splitlines()[0]
            yield [paint(name, "red", color=color), message]
        if "verdict" in facts[name] and step.error is None:
            yield [name, paint(verdict_line(facts[name]["verdict"]), "green", color=color)]
        if "relative_error" in facts[name] and step.error is None:
            yield [name, loss_line(facts[name])]
        if "benchmark" in facts[name]:
            yield [name, benchmark_line(facts[name]["benchmark"])]
        for number, file in enumerate(step.files):
            where = f"{short_path(file.path)}  {size(file.nbytes)}"
            yield [name if number == 0 else "", where]


def loss_line(facts: Mapping[str, Json]) -> str:
    """What smaller weights lost, in one line."""
    worst = facts["worst"]
    lost = f"{count(facts['tensors'], 'tensor')} off by {facts['relative_error']:.2g} of their size"
    if not facts["tensors"]:
        return "no weight was large enough, or could be made smaller"
    return f"{lost} (root mean square; {worst['tensor']} {worst['relative_error']:.2g})"


def verdict_line(verdict: Mapping[str, Json]) -> str:
    """What a validation found, in one line."""
    signatures: Mapping[str, Any] = verdict["signatures"]
    calls = sum(found["calls"] for found in signatures.values())
    if verdict["level"] == "exact":
        parts = [f"equal to the byte in {count(calls, 'call')}"]
    else:
        worst = max(
            (
                output.get("max_abs") or 0.0
                for found in signatures.values()
                for output in found["outputs"].values()
            ),
            default=0.0,
        )
        parts = [f"within tolerance in {count(calls, 'call')} (largest difference {worst:.2g})"]
    for found in signatures.values():
        accuracy = found.get("accuracy")
        if accuracy:
            parts.append(_accuracy(accuracy))
    return "; ".join(parts)


def benchmark_line(found: Mapping[str, Any]) -> str:
    """What a benchmark measured, in one line: original → result."""
    before, after = found["original"], found["result"]
    parts = [
        f"{word} {before[key] * 1000:.3g} → {after[key] * 1000:.3g} ms"
        for word, key in (
            ("p50", "p50_seconds"),
            ("p90", "p90_seconds"),
            ("p99", "p99_seconds"),
            ("first call", "first_call_seconds"),
            ("load", "load_seconds"),
        )
    ]
    parts.append(f"memory {size(before['memory_bytes'])} → {size(after['memory_bytes'])}")
    return f"{', '.join(parts)}; {count(found['samples'], 'call')} each, in turn"


def _accuracy(found: Mapping[str, Any]) -> str:
    before, after = found["original"], found["result"]
    what = f"on {count(found['labels'], 'label')}"
    if before == after:
        return f"accuracy {after:.1%}, the same as the original's, {what}"
    return f"accuracy {before:.1%} → {after:.1%} {what}"


def render_failure(step: StepResult, *, color: bool = False) -> str:
    """Why a step failed, with the end of its log."""
    assert step.error is not None
    lines = [render_error(step.error, color=color)]
    if step.log_end:
        lines.append("  the end of its log:")
        lines += [f"  | {line}" for line in step.log_end.splitlines()]
    if step.log is not None:
        lines.append(f"  the whole log: {short_path(step.log)}")
    return "\n".join(lines)


# ---------------------------------------------------------------- JSON


def run_to_json(
    plans: Sequence[Plan], result: RunResult, *, shard: tuple[int, int] | None = None
) -> Iterator[str]:
    """``freezeflow.run/2``, in pieces: plans with their steps, in order; for a shard which one it is."""
    head = {
        "format": FORMAT,
        "ok": result.ok,
        "nothing_to_do": result.is_idle,
        "seconds": round(result.seconds, 6),
        "shard": shard,
    }
    yield f'{json.dumps(head)[:-1]}, "plans": ['
    for number, plan in enumerate(plans):
        steps = result.steps.of_plan(plan.recipe, plan.name)
        data = {
            "recipe": str(plan.recipe),
            "name": plan.name,
            "steps": list(map(step_to_json, steps)),
        }
        yield f"{', ' if number else ''}{json.dumps(data)}"
    yield "]}"


def step_to_json(step: StepResult) -> Json:
    return {
        "id": step.ref.step,
        "stage": step.stage,
        "status": step.status,
        "key": str(step.key) if step.key else None,
        "model": str(step.model) if step.model else None,
        "files": [
            {"path": str(file.path), "sha256": file.sha256, "bytes": file.nbytes}
            for file in step.files
        ],
        "facts": step.facts,
        "log": str(step.log) if step.log else None,
        "error": error_to_json(step.error) if step.error else None,
    }
