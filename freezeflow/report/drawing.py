"""The steps of a recipe, drawn: as text, for mermaid, for graphviz."""

from __future__ import annotations

import json

from freezeflow.plan import Plan, Step
from freezeflow.report.text import table


def as_text(plan: Plan) -> str:
    """A row a step: what it is and what it needs."""
    rows = [[step.id, _stage(step), _needs(step)] for step in plan.steps]
    return f"{plan.name}\n{table(rows, indent='  ')}"


def as_mermaid(plan: Plan) -> str:
    """A flowchart as Markdown renderers draw it."""
    numbers = {step.id: f"s{number}" for number, step in enumerate(plan.steps)}
    lines = ["flowchart TD"]
    lines += [f'  {numbers[step.id]}["{_escaped(_label(step))}"]' for step in plan.steps]
    lines += [
        f"  {numbers[need]} --> {numbers[step.id]}" for step in plan.steps for need in step.needs
    ]
    return "\n".join(lines)


def as_dot(plan: Plan) -> str:
    """A digraph for ``dot``."""
    lines = [f"digraph {json.dumps(plan.name)} {{", "  node [shape=box];"]
    lines += [f"  {json.dumps(step.id)} [label={json.dumps(_label(step))}];" for step in plan.steps]
    lines += [
        f"  {json.dumps(need)} -> {json.dumps(step.id)};"
        for step in plan.steps
        for need in step.needs
    ]
    return "\n".join([*lines, "}"])


def _label(step: Step) -> str:
    return step.id if step.id == step.stage else f"{step.id}: {step.stage}"


def _stage(step: Step) -> str:
    return "" if step.id == step.stage else step.stage


def _needs(step: Step) -> str:
    return f"needs {', '.join(step.needs)}" if step.needs else ""


def _escaped(text: str) -> str:
    return text.replace('"', "#quot;")
