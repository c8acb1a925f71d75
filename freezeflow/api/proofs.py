"""What freezeflow offers to Python around verdicts; see ``docs/proof.md``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.api.recipes import load_plans, open_store
from freezeflow.errors import UsageError
from freezeflow.plan import selected
from freezeflow.values import AnyPath, Json

if TYPE_CHECKING:
    from freezeflow.engine.verdicts import StepVerdict


def verdicts(
    recipe: AnyPath,
    *,
    set_vars: Mapping[str, str] | None = None,
    select: Sequence[str] = (),
    cache_dir: AnyPath | None = None,
) -> tuple[StepVerdict, ...]:
    """What the validations of a recipe found, passed or failed; nothing runs.

    Args:
        recipe: Its file.
        set_vars: Values for variables of its ``vars`` block.
        select: Only models of such names.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        FreezeflowError: The recipe is not valid, or the cache cannot be read.
    """
    from freezeflow.engine.verdicts import step_verdicts

    plans = selected(load_plans(recipe, set_vars=set_vars, cache_dir=cache_dir), select)
    with open_store(cache_dir, Path(recipe).parent) as store:
        return tuple(step_verdicts(plans, store))


def replay(
    what: AnyPath,
    *,
    set_vars: Mapping[str, str] | None = None,
    select: Sequence[str] = (),
    cache_dir: AnyPath | None = None,
) -> list[Json]:
    """Runs a comparison again: the failing part that a validation saved, or a whole validation.

    Args:
        what: A folder that a failed validation left, or a recipe.
        set_vars: For a recipe: values for variables of its ``vars`` block.
        select: For a recipe: only models of such names.
        cache_dir: For a recipe: the cache's folder; None for what the settings say.

    Returns:
        For a folder what `freezeflow.tf.subgraph.replay_subgraph` gives, for a recipe the new verdict of
        each of its validations, on the inputs of the last one.

    Raises:
        UsageError: There is nothing to be run again.
        FreezeflowError: It cannot be run.
    """
    from freezeflow.engine.verdicts import replay_folder, replay_step, step_named, step_verdicts

    path = Path(os.fspath(what))
    with tempfile.TemporaryDirectory(prefix="freezeflow-") as folder:
        if path.is_dir():
            return [replay_folder(path, Path(folder))]
        plans = selected(load_plans(path, set_vars=set_vars, cache_dir=cache_dir), select)
        by_name = {plan.name: plan for plan in plans}
        found: list[Json] = []
        with open_store(cache_dir, path.parent) as store:
            for number, step in enumerate(step_verdicts(plans, store)):
                if step.inputs is None:
                    continue
                scratch = Path(folder, str(number))
                scratch.mkdir()
                plan = by_name[step.ref.plan]
                found.append(
                    replay_step(plan, step_named(plan, step.ref), step.inputs, store, scratch)
                )
    if not found:
        raise UsageError(
            "no validation of it has run as it is now",
            where=str(path),
            hint="freezeflow run it first.",
        )
    return found
