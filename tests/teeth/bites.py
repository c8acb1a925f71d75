"""Puts every fault into a model and validates each: what the tests judge, and the table of the docs.

``python -m tests.teeth.bites FOLDER`` prints the table; FOLDER is for the models and what they leave.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np

from freezeflow.errors import ValidationFailed
from freezeflow.graph.verify import verify
from freezeflow.stages.stage import StageInput
from freezeflow.stages.validate import STAGE, Params
from tests.constructs import harness
from tests.teeth.faults import FAULTS, nodes_named
from tests.teeth.models import MODELS
from tests.tf.built import FakeContext

QUIET_RUNS = 40

# What a call may take: a fault in a loop may keep it from ending.
SECONDS = 10.0


@dataclasses.dataclass
class Bite:
    """What validation said of a model with a fault.

    Args:
        kind: The kind of fault.
        caught: Whether it was told from the original.
        named: Whether the very node was named.
        verdict: The verdict.
    """

    kind: str
    caught: bool
    named: bool
    verdict: dict


def frozen_model(model_class, folder):
    """A model of `MODELS` as a source, and frozen."""
    model_class(1).save(folder / "saved")
    source = harness.saved_model(folder / "saved")
    (folder / "scratch").mkdir()
    return source, harness.freeze_model(source, folder / "scratch")


def validate(source, model, folder, **params):
    """The verdict on a model; with evidence in the folder where it differs."""
    folder.mkdir()
    context = FakeContext(folder)
    try:
        given = StageInput(model=model, source=source)
        return STAGE.run(given, Params(**params), context).facts["verdict"]
    except ValidationFailed:
        return json.loads((folder / "evidence" / "verdict.json").read_text())


def bites(source, model, folder):
    """Every fault that a model can have, judged."""
    for kind, make in FAULTS.items():
        for number, faulty in enumerate(make(model, np.random.default_rng(1))):
            assert verify(faulty.model) == (), kind
            where = folder / f"{kind}-{number}"
            verdict = validate(source, faulty.model, where, samples=6, call_seconds=SECONDS)
            if verdict["equal"]:
                # What few calls do not show, many may; if they do not, it is within tolerance.
                more = folder / f"{kind}-{number}-more"
                verdict = validate(source, faulty.model, more, samples=64, seed=9)
            caught = not verdict["equal"]
            named = caught and bool(blamed_by(verdict) & faulty.blamed)
            yield Bite(kind, caught, named, verdict)


def false_alarms(source, model, folder):
    """Verdicts that find a difference where there is none, in `QUIET_RUNS` runs."""
    for seed in range(QUIET_RUNS):
        where = folder / str(seed)
        verdict = validate(source, model, where, samples=1, seed=seed, edges=not seed)
        if not verdict["equal"]:
            yield verdict


def blamed_by(verdict):
    """The nodes that a verdict names: where values part, or where the result refuses a call."""
    if verdict["divergence"] is not None:
        return nodes_named(verdict["divergence"])
    refusals = [text for found in verdict["signatures"].values() for text in found["disagreements"]]
    return {name for text in refusals for name in re.findall(r"\(node ([^)]*)\)", text)}


def table(folder):
    """The figures of all models, in Markdown."""
    heads = (
        "model",
        "kinds",
        "faults",
        "within tolerance",
        "caught",
        "named exactly",
        "runs",
        "alarms",
    )
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    total = collections.Counter()
    kinds = set()
    for model_class in MODELS:
        name = model_class.__name__
        (folder / name).mkdir()
        pair = frozen_model(model_class, folder / name)
        found = list(bites(*pair, folder / name))
        counts = collections.Counter(
            faults=len(found),
            within=sum(not bite.caught for bite in found),
            caught=sum(bite.caught for bite in found),
            named=sum(bite.named for bite in found),
            runs=QUIET_RUNS,
            alarms=len(list(false_alarms(*pair, folder / name))),
        )
        kinds |= {bite.kind for bite in found}
        lines.append(_row(name, len({bite.kind for bite in found}), counts))
        total += counts
        for bite in found:
            if bite.caught and not bite.named:
                sys.stderr.write(f"{name} {bite.kind} {bite.verdict['divergence']}\n")
    return "\n".join([*lines, _row("all", len(kinds), total)])


def _row(name, kinds, counts):
    figures = (counts[key] for key in ("faults", "within", "caught", "named", "runs", "alarms"))
    return "| " + " | ".join([name, str(kinds), *map(str, figures)]) + " |"


if __name__ == "__main__":
    sys.stdout.write(f"{table(Path(sys.argv[1]))}\n")
