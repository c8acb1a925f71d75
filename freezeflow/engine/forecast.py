"""What a run would do, and why: nothing runs, nothing is changed but the stat cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from freezeflow.engine.keys import Change, KeyInput, Preimage, changes, preimages
from freezeflow.engine.looking_up import cached
from freezeflow.engine.results import StepRef
from freezeflow.errors import FreezeflowError
from freezeflow.plan import Plan, Step
from freezeflow.store.actions import key_of
from freezeflow.store.store import Store
from freezeflow.values import Digest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run would do with a step.

    Args:
        ref: Which step.
        stage: Its stage.
        state: ``cached``; ``run``; ``depends``: it runs unless what it needs, which runs first,
            gives the same as last time.
        reason: Why it would run, in words; empty for a cached step.
        changes: The fields of its key that differ from the last time it had a result.
        key: Its key; None where it depends.
    """

    ref: StepRef
    stage: str
    state: Literal["cached", "run", "depends"]
    reason: str = ""
    changes: tuple[Change, ...] = ()
    key: Digest | None = None


def forecast(plan: Plan, store: Store) -> tuple[Forecast, ...]:
    """What `run` would do with each step of a plan, in the plan's order.

    Raises:
        FreezeflowError: The store cannot be read, or a file that a step reads is missing.
    """
    return tuple(_Forecaster(plan, store).steps())


class _Forecaster:
    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan = plan
        self._store = store
        self._noted = store.actions.noted([str(plan.recipe)])
        self._models: dict[str, Digest] = {}

    def steps(self) -> list[Forecast]:
        return [self._step(step) for step in self._plan.steps]

    def _step(self, step: Step) -> Forecast:
        missing = [need for need in step.needs if need not in self._models]
        if missing:
            return self._depends(step, missing)
        preimage = self._preimage(step, [self._models[need] for need in step.needs])
        key = key_of(preimage)
        ((action, reason),) = cached([(key, step)], self._store)
        ref = StepRef(self._plan.recipe, self._plan.name, step.id)
        if reason:
            return Forecast(ref=ref, stage=step.stage, state="run", reason=reason, key=key)
        if action is None:
            before = self._last(step)
            return Forecast(
                ref=ref,
                stage=step.stage,
                state="run",
                reason="it has not run before" if before is None else "its key changed",
                changes=() if before is None else changes(before, preimage),
                key=key,
            )
        self._models[step.id] = action.outputs.model
        return Forecast(ref=ref, stage=step.stage, state="cached", key=key)

    def _depends(self, step: Step, missing: Sequence[str]) -> Forecast:
        """The step's own part of the key is known, and may have changed, too."""
        before = self._last(step)
        own: tuple[Change, ...] = ()
        if before is not None:
            now = self._preimage(step, [])
            own = tuple(c for c in changes(before, now) if c.field != "inputs")
        needed = ", ".join(missing)
        return Forecast(
            ref=StepRef(self._plan.recipe, self._plan.name, step.id),
            stage=step.stage,
            state="run" if own or before is None else "depends",
            reason=f"it needs {needed}, which runs" if before else "it has not run before",
            changes=own,
        )

    def _preimage(self, step: Step, inputs: Sequence[Digest]) -> Preimage:
        (found,) = preimages([KeyInput(self._plan, step, tuple(inputs))], self._store)
        if isinstance(found, FreezeflowError):
            raise found
        return found

    def _last(self, step: Step) -> Preimage | None:
        key = self._noted.get(StepRef(self._plan.recipe, self._plan.name, step.id).place)
        file = self._store.actions.file(key) if key else None
        return file.preimage if file else None
