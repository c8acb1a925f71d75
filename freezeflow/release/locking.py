"""Writes locks of what runs gave, and holds runs to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from freezeflow.engine.events import Event, OnEvent
from freezeflow.engine.results import RunResult
from freezeflow.errors import UsageError
from freezeflow.plan import Plan
from freezeflow.release.lock import (
    Lock,
    LockedModel,
    StepOutput,
    lock_model,
    read_lock,
    relative_files,
)
from freezeflow.release.lock_check import LockGuard, check_lock
from freezeflow.release.lock_file import lock_path
from freezeflow.store.store import Store


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LockWritten:
    """A lock that was written.

    Args:
        path: Its file.
        models: How many models it has.
        changed: Names of the models whose block is new or another one than before.
        dropped: Names of models that it no longer has.
    """

    path: Path
    models: int
    changed: tuple[str, ...]
    dropped: tuple[str, ...]


def locks_of(plans: Sequence[Plan], result: RunResult, store: Store) -> dict[Path, Lock]:
    """Recipe to the lock of what its plans gave.

    Args:
        plans: The plans that ran.
        result: What they gave; every step has a result.
        store: Where digests of unchanged files are known.
    """
    outputs: dict[tuple[Path, str], dict[str, StepOutput]] = {}
    for step in result.steps:
        recipe, plan_name, name = step.ref
        assert step.model is not None
        output = StepOutput(step.model, relative_files(recipe.parent, step.files))
        outputs.setdefault((recipe, plan_name), {})[name] = output
    found: dict[Path, dict[str, LockedModel]] = {}
    for plan in plans:
        locked = lock_model(plan, outputs[plan.recipe, plan.name], store)
        found.setdefault(plan.recipe, {})[plan.name] = locked
    return {recipe: Lock(path=lock_path(recipe), models=models) for recipe, models in found.items()}


def write_lock(lock: Lock, *, keep_others: bool) -> LockWritten:
    """Writes a lock; one that says the same already is not touched.

    Args:
        lock: What is to be written.
        keep_others: Leave the blocks of other models as they are.

    Raises:
        UsageError: The lock that is there is damaged, and the blocks of others are to be kept.
        FreezeflowError: It cannot be written.
    """
    before: Mapping[str, LockedModel] = {}
    damaged = False
    if lock.path.is_file():
        try:
            before = read_lock(lock.path).models
        except UsageError:
            if keep_others:
                raise
            damaged = True
    # What was recorded only must not make a block another one.
    models = {
        name: before[name] if name in before and _same(before[name], model) else model
        for name, model in lock.models.items()
    }
    whole = {**(before if keep_others else {}), **models}
    changed = tuple(sorted(name for name in models if before.get(name) != models[name]))
    dropped = tuple(sorted(before.keys() - whole.keys()))
    if changed or dropped or damaged or not lock.path.is_file():
        dataclasses.replace(lock, models=whole).write()
    return LockWritten(path=lock.path, models=len(whole), changed=changed, dropped=dropped)


def _same(before: LockedModel, after: LockedModel) -> bool:
    return dataclasses.replace(before, built_with=after.built_with) == after


def hold_to_locks(
    plans: Sequence[Plan], store: Store, on_event: OnEvent, *, whole: bool = True
) -> OnEvent:
    """Checks plans against their locks, and gives the listener that holds the run to them.

    Args:
        plans: The plans that are to run.
        store: Where digests of unchanged files are known.
        on_event: The run's own listener.
        whole: These are all plans of their recipes.

    Raises:
        UsageError: A recipe has no lock, or it is damaged.
        LockBroken: Something is not as it was locked; nothing has run.
    """
    by_recipe: dict[Path, list[Plan]] = {}
    for plan in plans:
        by_recipe.setdefault(plan.recipe, []).append(plan)
    locks = {recipe: read_lock(lock_path(recipe)) for recipe in by_recipe}
    for recipe, its_plans in by_recipe.items():
        # Files that differ are made anew by the run.
        report = check_lock(locks[recipe], its_plans, store, with_files=False, whole=whole)
        report.raise_if_broken()
    guard = LockGuard(locks, plans)

    def listen(event: Event) -> None:
        on_event(event)
        guard(event)

    return listen
