"""A verdict as text for people, as JSON, and as JUnit's XML for what shows test results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from freezeflow.engine.verdicts import StepVerdict
from freezeflow.proof.figure import figure
from freezeflow.report.text import paint, table
from freezeflow.values import Json

FORMAT = "freezeflow.verdicts/1"

_SHOWN = ("max_abs", "max_rel", "max_ulp", "rmse", "cosine", "sqnr_db", "bad_share", "atol_needed")


def verdicts_to_json(verdicts: Sequence[StepVerdict]) -> Json:
    """``freezeflow.verdicts/1``: every validation with its verdict."""
    return {
        "format": FORMAT,
        "ok": all(step.state == "passed" for step in verdicts),
        "steps": [
            {
                "recipe": str(step.ref.recipe),
                "model": step.ref.plan,
                "step": step.ref.step,
                "state": step.state,
                "verdict": step.verdict,
                "inputs": None if step.inputs is None else str(step.inputs),
                "evidence": None if step.evidence is None else str(step.evidence),
            }
            for step in verdicts
        ],
    }


def render_verdicts(verdicts: Sequence[StepVerdict], *, color: bool = False) -> str:
    """Every validation: signatures, outputs with their metrics, settings."""
    return "\n\n".join("\n".join(_step(step, color)) for step in verdicts)


def _step(step: StepVerdict, color: bool) -> Iterator[str]:
    shade = {"passed": "green", "failed": "red", "unknown": "yellow"}[step.state]
    yield f"{paint(step.ref.label, 'bold', color=color)}  {paint(step.state, shade, color=color)}"
    if step.verdict is None:
        yield "  it has not run as it is now"
        return
    yield from render_verdict(step.verdict, color=color)
    if step.evidence is not None:
        yield f"  replay: freezeflow replay {step.evidence}"


def render_verdict(verdict: Mapping[str, Any], *, color: bool = False) -> Iterator[str]:
    """The lines of one verdict."""
    tolerance = verdict["tolerance"]
    within = f", atol {tolerance['atol']:g}, rtol {tolerance['rtol']:g}" if tolerance else ""
    yield f"  level {verdict['level']}{within}"
    for name, found in verdict["signatures"].items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in found["kinds"].items())
        yield f"  {name}: {found['calls']} calls ({kinds}), {found['refused']} refused by both"
        for line in found["disagreements"]:
            yield f"    {paint(line, 'red', color=color)}"
        yield table(_outputs(found["outputs"], color), indent="    ")
    divergence = verdict.get("divergence")
    if divergence and "node" in divergence:
        yield f"  begins at {divergence['node']} ({divergence['op']}), which {divergence['says']}"
    settings = verdict["settings"]
    told = ", ".join(
        f"{key} {value}" for key, value in settings.items() if not isinstance(value, Mapping)
    )
    yield f"  settings: {told}"
    confinement = settings["confinement"]
    if confinement:
        yield f"  confinement: {', '.join(f'{k} {v}' for k, v in confinement.items())}"


def _outputs(outputs: Mapping[str, Any], color: bool) -> Iterator[list[str]]:
    yield ["output", "", *_SHOWN]
    for key, output in outputs.items():
        word = "equal" if output["equal"] else "differs"
        word = "random" if output["random"] else word
        shade = "green" if output["equal"] else "red"
        if "problem" in output:
            yield [key, paint(word, shade, color=color), output["problem"]]
        else:
            yield [
                key,
                paint(word, shade, color=color),
                *(figure(k, output.get(k)) for k in _SHOWN),
            ]


def verdicts_to_junit(verdicts: Sequence[StepVerdict]) -> str:
    """JUnit's XML: a suite for each validation, a case for each output of each signature."""
    root = ElementTree.Element("testsuites", name="freezeflow")
    for step in verdicts:
        suite = ElementTree.SubElement(root, "testsuite", name=step.ref.label)
        cases = list(_cases(step))
        failures = sum(1 for _, _, problem in cases if problem)
        suite.set("tests", str(len(cases)))
        suite.set("failures", str(failures if step.state != "unknown" else 0))
        suite.set("skipped", str(int(step.state == "unknown")))
        properties = ElementTree.SubElement(suite, "properties")
        for key, value in (step.verdict or {}).get("settings", {}).items():
            ElementTree.SubElement(properties, "property", name=key, value=_plain(value))
        for group, name, problem in cases:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{step.ref.label}.{group}", name=name
            )
            if step.state == "unknown":
                ElementTree.SubElement(case, "skipped", message="it has not run as it is now")
            elif problem:
                ElementTree.SubElement(case, "failure", message=problem).text = problem
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _cases(step: StepVerdict) -> Iterator[tuple[str, str, str]]:
    """Signature, output, and what is wrong with it (empty: nothing)."""
    if step.verdict is None:
        yield "validate", step.ref.step, ""
        return
    for name, found in step.verdict["signatures"].items():
        yield name, "refused inputs", "; ".join(found["disagreements"])
        for key, output in found["outputs"].items():
            yield name, key, "" if output["equal"] else _problem(step.verdict, output)


def _problem(verdict: Mapping[str, Any], output: Mapping[str, Any]) -> str:
    figures = ", ".join(f"{k} {figure(k, output[k])}" for k in _SHOWN if output.get(k) is not None)
    divergence = verdict.get("divergence") or {}
    begins = f"; begins at {divergence['node']}" if "node" in divergence else ""
    return f"{output.get('problem') or figures}{begins}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def render_replay(found: Mapping[str, Any], *, color: bool = False) -> str:
    """What came of running a comparison again."""
    if "signatures" in found:
        return "\n".join(render_verdict(found, color=color))
    word = "equal" if found["equal"] else "differs"
    shade = "green" if found["equal"] else "red"
    rows = [[key, figure(key, value)] for key, value in found["metrics"].items()]
    head = f"{found['node']}: {paint(word, shade, color=color)}"
    return f"{head}\n{table(rows, indent='  ')}"
