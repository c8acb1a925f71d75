"""What freezeflow offers to Python around release builds; see ``docs/release.md``.

For whatever a user can mend, each function raises a `freezeflow.FreezeflowError` that says where and
what to do.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.api import AnyPath, cached_model, load_plans, open_store, run
from freezeflow.errors import UsageError

if TYPE_CHECKING:
    from freezeflow.engine.events import OnEvent
    from freezeflow.engine.results import RunResult
    from freezeflow.plan import Plan
    from freezeflow.release.compare import Comparison
    from freezeflow.release.lock_check import LockReport
    from freezeflow.release.locking import LockWritten


def diff(before: AnyPath, after: AnyPath, *, cache_dir: AnyPath | None = None) -> Comparison:
    """How two models differ; without TensorFlow (but for Keras files).

    Args:
        before: The path of a model, of a graph file, or of a recipe whose results are in the cache;
            or ``RECIPE:STEP`` for what a step gave.
        after: The same.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        UsageError: There is nothing of that name.
        ModelRefused: What is there is no model, or is damaged.
        FreezeflowError: A step is not cached.
    """
    from freezeflow.release.compare import compare
    from freezeflow.release.operands import Reader

    def plans_of(path: Path) -> tuple[Plan, ...]:
        return load_plans(path, cache_dir=cache_dir)

    with Reader(plans_of, functools.partial(cached_model, cache_dir=cache_dir)) as reader:
        return compare(reader.operand(os.fspath(before)), reader.operand(os.fspath(after)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What `lock` did.

    Args:
        result: How the steps ended.
        lock: The lock that was written; None where a step failed.
    """

    result: RunResult
    lock: LockWritten | None


def lock(
    recipe: AnyPath,
    *,
    set_vars: Mapping[str, str] | None = None,
    models: Sequence[str] = (),
    jobs: int | None = None,
    cache_dir: AnyPath | None = None,
    on_event: OnEvent | None = None,
) -> Locked:
    """Runs what is not cached, and writes ``RECIPE.lock``: what the recipe gives, to the byte.

    Args:
        recipe: The recipe's file.
        set_vars: Values for variables of its ``vars`` block.
        models: Names of the models to lock anew, the others' blocks stay as they are; all by default.
        jobs: Steps that run side by side; None for what the settings say.
        cache_dir: The cache's folder; None for what the settings say.
        on_event: Told what happens, in this thread.

    Raises:
        RecipeError: The recipe is not valid.
        UsageError: There is no such model.
        FreezeflowError: The cache or the lock cannot be read or written.
    """
    from freezeflow.release.locking import locks_of, write_lock

    plans = _chosen(load_plans(recipe, set_vars=set_vars, cache_dir=cache_dir), models)
    result = run(plans, jobs=jobs, cache_dir=cache_dir, on_event=on_event)
    if not result.ok:
        return Locked(result=result, lock=None)
    with open_store(cache_dir, Path(recipe).parent) as store:
        (made,) = locks_of(plans, result, store).values()
    return Locked(result=result, lock=write_lock(made, keep_others=bool(models)))


def check_lock(
    recipe: AnyPath,
    *,
    set_vars: Mapping[str, str] | None = None,
    models: Sequence[str] = (),
    cache_dir: AnyPath | None = None,
) -> LockReport:
    """Whether a recipe's lock holds, as far as that can be told without running a step.

    Args:
        recipe: The recipe's file.
        set_vars: Values for variables of its ``vars`` block.
        models: Names of the models to check; all by default.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        RecipeError: The recipe is not valid.
        UsageError: There is no lock, no such model, or the lock is damaged.
        FreezeflowError: A file that a step reads cannot be read.
    """
    from freezeflow.release.lock import read_lock
    from freezeflow.release.lock_check import check_lock as check
    from freezeflow.release.lock_file import lock_path

    plans = _chosen(load_plans(recipe, set_vars=set_vars, cache_dir=cache_dir), models)
    with open_store(cache_dir, Path(recipe).parent) as store:
        found = read_lock(lock_path(plans[0].recipe))
        return check(found, plans, store, whole=not models)


# ---------------------------------------------------------------- what the functions share


def _chosen(plans: Sequence[Plan], names: Sequence[str]) -> tuple[Plan, ...]:
    """The plans of these models; all where none is named."""
    known = [plan.name for plan in plans]
    for name in names:
        if name not in known:
            raise UsageError(
                f"the recipe has no model {name!r}", hint=f"There are: {', '.join(known)}."
            )
    return tuple(plan for plan in plans if not names or plan.name in names)
