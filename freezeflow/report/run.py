"""How a run ended: a table for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from freezeflow.engine.results import RunResult, StepResult
from freezeflow.plan import Plan
from freezeflow.report.errors import error_to_json, render_error
from freezeflow.report.text import count, paint, seconds, short_path, size, table
from freezeflow.values import Json

FORMAT = "freezeflow.run/1"

_COLORS = {"cached": "dim", "ran": "green", "failed": "red", "skipped": "yellow"}

# With more recipes than this, those in which nothing ran get no table.
_FEW_RECIPES = 3


def render_run(plans: Sequence[Plan], result: RunResult, *, color: bool = False) -> str:
    """A table of each recipe's steps, and a line that sums up."""
    by_recipe = _by_recipe(result)
    parts = []
    if result.steps and all(step.status == "cached" for step in result.steps):
        parts.append(_nothing_to_do(result, color))
    for plan in plans:
        steps = by_recipe.get(plan.recipe, [])
        idle = all(step.status == "cached" for step in steps)
        if steps and not (idle and len(plans) > _FEW_RECIPES):
            parts.append(_recipe(plan, steps, color))
    if not _is_idle(result):
        parts.append(_sum(result, color))
    return "\n\n".join(parts)


def _is_idle(result: RunResult) -> bool:
    return all(step.status == "cached" for step in result.steps)


def _nothing_to_do(result: RunResult, color: bool) -> str:
    head = paint("Nothing to do:", "bold", color=color)
    steps = count(len(result.steps), "step is", "steps are")
    return f"{head} {steps} cached, looked up in {seconds(result.seconds)}."


def _sum(result: RunResult, color: bool) -> str:
    statuses = [step.status for step in result.steps]
    counted = [
        paint(f"{statuses.count(status)} {status}", _COLORS[status], color=color)
        for status in ("ran", "cached", "failed", "skipped")
        if status in statuses
    ]
    word = "Done" if result.ok else "Failed"
    head = paint(f"{word}:", "bold", color=color)
    return f"{head} {', '.join(counted)}, in {seconds(result.seconds)}."


def _recipe(plan: Plan, steps: Sequence[StepResult], color: bool) -> str:
    head = f"{paint(plan.name, 'bold', color=color)}  {short_path(plan.recipe)}"
    rows = list(_rows(plan, steps, color))
    return f"{head}\n{table(rows, indent='  ', right=(2,))}"


def _rows(plan: Plan, steps: Sequence[StepResult], color: bool) -> Iterator[list[str]]:
    yield [paint(name, "dim", color=color) for name in ("step", "", "time", "nodes", "weights", "")]
    facts = {step.ref.step: step.facts for step in steps}
    needs = {step.id: step.needs for step in plan.steps}
    for step in steps:
        own = facts[step.ref.step]
        before = next((facts[need] for need in needs[step.ref.step] if need in facts), {})
        yield [
            step.ref.step,
            paint(step.status, _COLORS[step.status], color=color),
            seconds(own["seconds"]) if step.status == "ran" else "",
            _change(before.get("nodes"), own.get("nodes"), "{:,}".format),
            _change(before.get("tensor_bytes"), own.get("tensor_bytes"), size),
            _remark(step, own, color),
        ]


def _change(before: int | None, after: int | None, form: Any) -> str:
    """``83 → 40``; only one figure where nothing changed, none where none is known."""
    if after is None:
        return ""
    if before is None or before == after:
        return str(form(after))
    return f"{form(before)} → {form(after)}"


def _remark(step: StepResult, facts: Mapping[str, Json], color: bool) -> str:
    if step.error is not None:
        return step.error.message.splitlines()[0]
    if "verdict" in facts:
        return paint(verdict_line(facts["verdict"]), "green", color=color)
    if step.files:
        main = step.files[0]
        return f"{short_path(main.path)}  {size(main.nbytes)}"
    return ""


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


def run_to_json(plans: Sequence[Plan], result: RunResult) -> Json:
    """``freezeflow.run/1``: recipes with their steps, in order."""
    by_recipe = _by_recipe(result)
    return {
        "format": FORMAT,
        "ok": result.ok,
        "nothing_to_do": _is_idle(result),
        "seconds": round(result.seconds, 6),
        "recipes": [
            {
                "recipe": str(plan.recipe),
                "name": plan.name,
                "steps": [_step_to_json(step) for step in by_recipe.get(plan.recipe, [])],
            }
            for plan in plans
        ],
    }


def _step_to_json(step: StepResult) -> Json:
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


def _by_recipe(result: RunResult) -> dict[Path, list[StepResult]]:
    found: dict[Path, list[StepResult]] = {}
    for step in result.steps:
        found.setdefault(step.ref.recipe, []).append(step)
    return found
