"""A run as JUnit XML, which systems for continuous integration show: a suite a plan, a case a step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from freezeflow.engine.results import RunResult, StepResult
from freezeflow.plan import Plan

# What XML 1.0 cannot hold.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def run_to_junit(plans: Sequence[Plan], result: RunResult) -> bytes:
    """The XML of a run."""
    root = ElementTree.Element("testsuites", name="freezeflow", time=f"{result.seconds:.3f}")
    for plan in plans:
        _add_suite(root, plan, result.steps.of_plan(plan.recipe, plan.name))
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _add_suite(root: ElementTree.Element, plan: Plan, steps: Sequence[StepResult]) -> None:
    statuses = [step.status for step in steps]
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=_clean(f"{plan.recipe.name}: {plan.name}"),
        tests=str(len(steps)),
        failures=str(statuses.count("failed")),
        errors="0",
        skipped=str(statuses.count("skipped")),
        time=f"{sum(map(_seconds, steps)):.3f}",
    )
    for step in steps:
        name = _clean(step.ref.step)
        case = ElementTree.SubElement(
            suite, "testcase", classname=_clean(plan.name), name=name, time=f"{_seconds(step):.3f}"
        )
        if step.status == "skipped":
            ElementTree.SubElement(case, "skipped", message="something that it needs failed")
        elif step.error is not None:
            message = _clean(step.error.message.partition("\n")[0])
            kind = type(step.error).__name__
            failure = ElementTree.SubElement(case, "failure", message=message, type=kind)
            failure.text = _clean(f"{step.error}\n{step.log_end}".strip())


def _seconds(step: StepResult) -> float:
    return float(step.facts.get("seconds", 0.0)) if step.status == "ran" else 0.0


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
