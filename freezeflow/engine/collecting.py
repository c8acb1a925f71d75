"""Cleans a store: results by rules and by the recipes that use them, and plans of recipes that are gone."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from freezeflow.engine.survey import look_up
from freezeflow.graph.storage import tensor_digests
from freezeflow.plan import Plan, plans_of_no_recipe
from freezeflow.store.collecting import Collected, Rules, gc
from freezeflow.store.store import Store


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What was deleted, or would be: what `gc` says, and files of kept plans."""

    collected: Collected
    plans: tuple[Path, ...]


def clean(
    store: Store, rules: Rules, *, roots: Sequence[Plan] | None = None, dry_run: bool = False
) -> Cleaned:
    """Deletes what is not wanted any more.

    Args:
        store: The store.
        rules: What goes.
        roots: What the steps of these plans have in the cache stays; None for no such rule.
        dry_run: Delete nothing, and tell what would be.

    Raises:
        FreezeflowError: Something cannot be deleted.
    """
    if roots is not None:
        # Also of steps that failed: what they left to explain themselves stays, too.
        keys = {task.key for task in look_up(roots, store, None)}
        rules = dataclasses.replace(rules, keep={*keys, *(rules.keep or ())})
    plans = plans_of_no_recipe(store.folder / "plans")
    collected = gc(store, rules, tensors_of=tensor_digests, dry_run=dry_run)
    if not dry_run:
        for path in plans:
            with contextlib.suppress(OSError):  # it is made again, and swept again
                path.unlink()
    return Cleaned(collected=collected, plans=tuple(plans))
