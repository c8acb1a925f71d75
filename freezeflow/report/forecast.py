"""What a run would do, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from freezeflow.engine.forecast import Forecast
from freezeflow.engine.keys import Change
from freezeflow.plan import Plan
from freezeflow.report.text import count, paint, short_path, table
from freezeflow.values import Json

FORMAT = "freezeflow.forecast/2"

_STATES = {
    "cached": ("cached", "dim"),
    "remote": ("remote", "cyan"),
    "run": ("runs", "green"),
    "depends": ("maybe", "yellow"),
}

# With more plans than this, those in which nothing would run are not shown.
_FEW_PLANS = 3

# Longer values are cut in the middle.
_SHOWN = 60


def render_forecasts(
    plans: Sequence[Plan], forecasts: Sequence[Forecast], *, color: bool = False
) -> Iterator[str]:
    """Each plan's steps, a line each, below it the fields of its key that changed; and a sum.

    Of many plans, those in which nothing would run are only counted. It comes in pieces of some lines.
    """
    for plan, found in _by_plan(plans, forecasts):
        is_idle = all(step.state == "cached" for step in found)
        if not is_idle or len(plans) <= _FEW_PLANS:
            yield f"{_plan(plan, found, color)}\n\n"
    running = sum(found.state == "run" for found in forecasts)
    unsure = sum(found.state == "depends" for found in forecasts)
    remote = sum(found.state == "remote" for found in forecasts)
    if not plans:
        yield "Nothing to do: no model is selected.\n"
    elif not running and not remote:
        yield f"Nothing to do: {count(len(forecasts), 'step is', 'steps are')} cached.\n"
    else:
        more = f", {remote} would come from the shared cache" if remote else ""
        more += f", {unsure} if what they need has changed" if unsure else ""
        yield f"{running} of {count(len(forecasts), 'step')} would run{more}.\n"


def _by_plan(
    plans: Sequence[Plan], forecasts: Sequence[Forecast]
) -> Iterator[tuple[Plan, Sequence[Forecast]]]:
    start = 0
    for plan in plans:
        yield plan, forecasts[start : start + len(plan.steps)]
        start += len(plan.steps)


def _plan(plan: Plan, forecasts: Sequence[Forecast], color: bool) -> str:
    lines = [f"{paint(plan.name, 'bold', color=color)}  {short_path(plan.recipe)}"]
    rows = []
    for found in forecasts:
        word, style = _STATES[found.state]
        rows.append([found.ref.step, paint(word, style, color=color), found.reason])
    heads = table(rows, indent="  ").splitlines()
    for head, found in zip(heads, forecasts, strict=True):
        lines.append(head)
        lines += [f"      {_change(change, color)}" for change in found.changes]
    return "\n".join(lines)


def _change(change: Change, color: bool) -> str:
    before, after = _shown(change.before), _shown(change.after)
    return f"{paint(change.field, 'bold', color=color)}: {before} → {after}"


def _shown(value: Json) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) == 64 and not set(text) - set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"


def forecast_to_json(plans: Sequence[Plan], forecasts: Sequence[Forecast]) -> Iterator[str]:
    """``freezeflow.forecast/2``, in pieces: plans with their steps, in order."""
    yield f'{{"format": {json.dumps(FORMAT)}, "plans": ['
    for number, (plan, found) in enumerate(_by_plan(plans, forecasts)):
        data = {
            "recipe": str(plan.recipe),
            "name": plan.name,
            "steps": list(map(_step_to_json, found)),
        }
        yield f"{', ' if number else ''}{json.dumps(data)}"
    yield "]}\n"


def _step_to_json(found: Forecast) -> Json:
    return {
        "id": found.ref.step,
        "stage": found.stage,
        "state": found.state,
        "reason": found.reason,
        "key": str(found.key) if found.key else None,
        "changes": [
            {"field": change.field, "before": change.before, "after": change.after}
            for change in found.changes
        ],
    }
