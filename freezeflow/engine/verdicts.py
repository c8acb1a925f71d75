"""Verdicts of validations, looked up: those that passed and those that failed; and run again."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from freezeflow.context import EVIDENCE, INPUTS_FILE, SUBGRAPH_FOLDER, VERDICT_FILE
from freezeflow.engine.confined import run_confined
from freezeflow.engine.evidence import file_name
from freezeflow.engine.forecast import forecast
from freezeflow.engine.orders import Limits
from freezeflow.engine.results import StepRef
from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.plan import Plan, Step
from freezeflow.store.store import Store
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Digest, Json

_STAGE = "validate"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepVerdict:
    """What a validation found.

    Args:
        ref: Which step.
        state: ``passed``, ``failed``, or ``unknown``: it has not run as it is now.
        verdict: ``freezeflow.verdict/1``; None where it is unknown.
        inputs: The file with the inputs of all its calls, if it is there.
        evidence: The folder that a failure left.
    """

    ref: StepRef
    state: Literal["passed", "failed", "unknown"]
    verdict: Json = None
    inputs: Path | None = None
    evidence: Path | None = None


def step_verdicts(plans: Sequence[Plan], store: Store) -> list[StepVerdict]:
    """The verdict of every validation of some plans, without running anything.

    Raises:
        FreezeflowError: The store cannot be read, or a file that a step reads is missing.
    """
    found = []
    for plan in plans:
        for step in forecast(plan, store):
            if step.stage == _STAGE:
                found.append(_verdict(step.ref, step.key, step.state == "cached", store))
    return found


def _verdict(ref: StepRef, key: Digest | None, is_cached: bool, store: Store) -> StepVerdict:
    if key is not None and is_cached:
        verdict = store.actions.get([key])[key].facts["verdict"]
        blob = store.blobs.path(Digest.parse(verdict["inputs"]))
        inputs = blob if blob.is_file() else None
        return StepVerdict(ref=ref, state="passed", verdict=verdict, inputs=inputs)
    folder = None if key is None else store.failures.find(file_name(ref), key)
    if folder is None:
        return StepVerdict(ref=ref, state="unknown")
    return StepVerdict(
        ref=ref,
        state="failed",
        verdict=json.loads((folder / VERDICT_FILE).read_text()),
        inputs=folder / INPUTS_FILE,
        evidence=folder,
    )


def replay_folder(folder: Path, scratch: Path) -> Json:
    """Runs the failing part that a validation saved, in a confined process.

    Args:
        folder: A folder of evidence, or the folder of the failing part in it.
        scratch: The only folder in which the process may write.

    Returns:
        What `freezeflow.tf.subgraph.replay_subgraph` gives.

    Raises:
        UsageError: There is no such part.
        FreezeflowError: It is damaged, or cannot be run.
    """
    inner = folder / SUBGRAPH_FOLDER
    part = inner if inner.is_dir() else folder
    if not (part / "subgraph.json").is_file():
        raise UsageError(
            "holds no failing part of a graph that could be run",
            where=str(folder),
            hint=f"The inputs of all calls are in {INPUTS_FILE}: freezeflow replay RECIPE.",
        )
    return run_confined(_replayed, (str(part.absolute()),), scratch, Limits())


def _replayed(folder: str) -> Json:
    """In the confined process, which imports TensorFlow for itself."""
    importlib.import_module("freezeflow.tf.preload")
    from freezeflow.tf.subgraph import replay_subgraph

    return replay_subgraph(Path(folder))


def replay_step(plan: Plan, step: Step, inputs: Path, store: Store, scratch: Path) -> Json:
    """Validates again on the inputs of an earlier validation.

    Args:
        plan: The plan.
        step: Its validation.
        inputs: The file with the inputs.
        store: Where the model that it works on is looked up.
        scratch: A folder of its own.

    Returns:
        The new verdict.

    Raises:
        FreezeflowError: The model is not cached, or the validation cannot be made.
    """
    from freezeflow.engine.cached import cached_model
    from freezeflow.engine.direct import run_chain
    from freezeflow.errors import ValidationFailed
    from freezeflow.params import params_from_json
    from freezeflow.stages.registry import stage_named

    model = cached_model(plan, step.needs[0], store)
    given = scratch / "given.tfrecord"
    os.symlink(inputs, given)
    values = {**step.params, "inputs": str(given), "images": None, "samples": None}
    values.update(warmup=False, edges=False, labels=None, scores=None)
    stage = stage_named(step.stage)
    chain = [(stage, params_from_json(stage.params, values))]
    try:
        done = run_chain(step.source, chain, base=step.base, start=model, scratch=scratch)
    except ValidationFailed:
        for path in scratch.rglob(f"{EVIDENCE}/{VERDICT_FILE}"):
            return json.loads(path.read_text())
        raise
    return done.outcomes[-1].facts["verdict"]


def step_named(plan: Plan, ref: StepRef) -> Step:
    """The step of a plan that a reference names."""
    for step in plan.steps:
        if step.id == ref.step:
            return step
    hint = did_you_mean(ref.step, [step.id for step in plan.steps])
    raise FreezeflowError(f"no step is called {ref.step!r}", where=str(plan.recipe), hint=hint)
