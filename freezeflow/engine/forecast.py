"""What a run would do, and why: nothing runs, nothing is changed but the stat cache."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from freezeflow.engine.keys import Change, KeyInput, Preimage, changes, preimages
from freezeflow.engine.looking_up import cached
from freezeflow.engine.results import StepRef
from freezeflow.errors import FreezeflowError
from freezeflow.plan import Plan, Step
from freezeflow.store.actions import Outputs, key_of
from freezeflow.store.store import Store
from freezeflow.values import Digest

if TYPE_CHECKING:
    from freezeflow.engine.shared import SharedCache

# Plans that are looked up together.
_AT_ONCE = 256

_SHARED = "the shared cache has its result"

State = Literal["cached", "remote", "run", "depends"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run would do with a step.

    Args:
        ref: Which step.
        stage: Its stage.
        state: ``cached``; ``remote``: its result comes from the shared cache; ``run``; ``depends``:
            it runs unless what it needs, which runs first, gives the same as last time.
        reason: Why it would run, in words; empty for a cached step.
        changes: The fields of its key that differ from the last time it had a result.
        key: Its key; None where it depends.
    """

    ref: StepRef
    stage: str
    state: State
    reason: str = ""
    changes: tuple[Change, ...] = ()
    key: Digest | None = None


def forecast(plan: Plan, store: Store) -> tuple[Forecast, ...]:
    """What `run` would do with each step of a plan; see `forecast_plans`."""
    return forecast_plans([plan], store)


def forecast_plans(
    plans: Sequence[Plan], store: Store, shared: SharedCache | None = None
) -> tuple[Forecast, ...]:
    """What `run` would do with each step of some plans, in their order.

    Args:
        plans: The plans.
        store: The local cache.
        shared: The shared one, which is asked what it has; nothing is brought from it.

    Raises:
        FreezeflowError: The store cannot be read, or a file that a step reads is missing.
    """
    some = (plans[start : start + _AT_ONCE] for start in range(0, len(plans), _AT_ONCE))
    return tuple(found for group in some for found in _Forecaster(group, store, shared).look())


class _Forecaster:
    """Looks at the first steps of some plans, then at their second steps, and so on."""

    def __init__(self, plans: Sequence[Plan], store: Store, shared: SharedCache | None) -> None:
        # For each plan its steps, and what is known of them so far.
        self._steps = [tuple(plan.steps) for plan in plans]
        self._found: list[list[Forecast]] = [[] for _ in plans]
        self._plans = plans
        self._store = store
        self._shared = shared
        self._noted = store.actions.noted(
            [
                self._ref(place, step).place
                for place, steps in enumerate(self._steps)
                for step in steps
            ]
        )
        # For each plan what those of its steps give that are cached.
        self._given: list[dict[str, Outputs]] = [{} for _ in plans]

    def look(self) -> Iterator[Forecast]:
        """What is found of all steps, in the order of the plans."""
        for number in range(max(map(len, self._steps), default=0)):
            self._look_at(number)
        return itertools.chain.from_iterable(self._found)

    def _look_at(self, number: int) -> None:
        """Looks at the step with a number of each plan that has one."""
        known: list[tuple[int, Step]] = []
        waiting: list[tuple[int, Step]] = []
        for place, steps in enumerate(self._steps):
            if number < len(steps):
                step = steps[number]
                is_known = all(need in self._given[place] for need in step.needs)
                (known if is_known else waiting).append((place, step))
        self._look_up(known)
        self._look_behind(waiting)

    def _look_up(self, steps: Sequence[tuple[int, Step]]) -> None:
        """Steps whose key is known."""
        found = self._preimages(
            [(place, step, [self._given[place][n] for n in step.needs]) for place, step in steps]
        )
        keys = [key_of(preimage) for preimage in found]
        looked = cached(
            [(key, step) for key, (_, step) in zip(keys, steps, strict=True)], self._store
        )
        missed = [key for key, (action, _) in zip(keys, looked, strict=True) if action is None]
        there = self._shared.entries(missed) if self._shared and missed else {}
        for (place, step), preimage, key, (action, reason) in zip(
            steps, found, keys, looked, strict=True
        ):
            if action is not None:
                self._given[place][step.id] = action.outputs
                self._add(place, step, state="cached", key=key)
                continue
            if key in there:
                self._given[place][step.id] = there[key].outputs
                self._add(place, step, state="remote", reason=_SHARED, key=key)
                continue
            before = None if reason else self._last(place, step)
            why = reason or ("it has not run before" if before is None else "its key changed")
            differs = () if before is None else changes(before, preimage)
            self._add(place, step, state="run", reason=why, changes=differs, key=key)

    def _look_behind(self, steps: Sequence[tuple[int, Step]]) -> None:
        """Steps that need one that runs: their own part of the key is known, and may have changed."""
        befores = [self._last(place, step) for place, step in steps]
        ran = [
            (*each, before)
            for each, before in zip(steps, befores, strict=True)
            if before is not None
        ]
        nows = self._preimages([(place, step, []) for place, step, _ in ran])
        own = {
            (place, step.id): tuple(
                c
                for c in changes(before, now)
                if not c.field.startswith(("inputs", "needed_files"))
            )
            for (place, step, before), now in zip(ran, nows, strict=True)
        }
        for place, step in steps:
            differs = own.get((place, step.id))
            missing = [need for need in step.needs if need not in self._given[place]]
            why = f"it needs {', '.join(missing)}, which runs"
            if differs is None:
                self._add(place, step, state="run", reason="it has not run before")
            else:
                state: State = "run" if differs else "depends"
                self._add(place, step, state=state, reason=why, changes=differs)

    def _add(
        self,
        place: int,
        step: Step,
        *,
        state: State,
        reason: str = "",
        changes: tuple[Change, ...] = (),
        key: Digest | None = None,
    ) -> None:
        ref = self._ref(place, step)
        self._found[place].append(
            Forecast(
                ref=ref, stage=step.stage, state=state, reason=reason, changes=changes, key=key
            )
        )

    def _preimages(self, steps: Sequence[tuple[int, Step, Sequence[Outputs]]]) -> list[Preimage]:
        wanted = [
            KeyInput(
                self._plans[place],
                step,
                tuple(given.model for given in inputs),
                {file.path: file.sha256 for given in inputs for file in given.files},
            )
            for place, step, inputs in steps
        ]
        found = []
        for preimage in preimages(wanted, self._store):
            if isinstance(preimage, FreezeflowError):
                raise preimage
            found.append(preimage)
        return found

    def _last(self, place: int, step: Step) -> Preimage | None:
        key = self._noted.get(self._ref(place, step).place)
        file = self._store.actions.file(key) if key else None
        return file.preimage if file else None

    def _ref(self, place: int, step: Step) -> StepRef:
        plan = self._plans[place]
        # Steps of many plans have the same ids.
        return StepRef(plan.recipe, plan.name, sys.intern(step.id))
