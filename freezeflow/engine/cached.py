"""What a step gave, looked up in the store without running anything."""

from __future__ import annotations

from freezeflow.engine.forecast import forecast
from freezeflow.engine.results import StepRef
from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.graph.model import Model
from freezeflow.plan import Plan
from freezeflow.store.actions import Action
from freezeflow.store.store import Store
from freezeflow.suggestions import did_you_mean


def cached_model(plan: Plan, step: str, store: Store) -> Model:
    """The model that a step gave.

    Raises:
        UsageError: There is no such step.
        FreezeflowError: It is not cached, or bytes of it are gone.
    """
    from freezeflow.graph.storage import decode_model, tensor_digests

    outputs = cached_action(plan, step, store).outputs
    record = store.blobs.read(outputs.record)
    wanted = tensor_digests(record)
    locations = store.tensors.locate(wanted)
    if any(digest not in locations for digest in wanted):
        raise _not_cached(plan, step, "a file of the model has changed or gone since it ran")
    return decode_model(store.blobs.read(outputs.graph), record, locations)


def cached_action(plan: Plan, step: str, store: Store) -> Action:
    """What the cache knows of a step.

    Raises:
        UsageError: There is no such step.
        FreezeflowError: It is not cached.
    """
    ids = [known.id for known in plan.steps]
    if step not in ids:
        raise UsageError(f"no step is called {step!r}", hint=did_you_mean(step, ids))
    found = next(found for found in forecast(plan, store) if found.ref.step == step)
    if found.state != "cached" or found.key is None:
        raise _not_cached(plan, step, found.reason)
    return store.actions.get([found.key])[found.key]


def _not_cached(plan: Plan, step: str, reason: str) -> FreezeflowError:
    return FreezeflowError(
        f"the step is not cached: {reason}",
        where=str(StepRef(plan.recipe, plan.name, step)),
        hint="Run the recipe first: freezeflow run.",
    )
