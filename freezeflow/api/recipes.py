"""Recipes: load, choose, run, and what their steps gave; the settings and the cache behind them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.errors import FreezeflowError, RecipeError, UsageError
from freezeflow.values import AnyPath, Json

if TYPE_CHECKING:
    from freezeflow.engine.events import OnEvent
    from freezeflow.engine.forecast import Forecast
    from freezeflow.engine.options import Shard
    from freezeflow.engine.results import RunResult
    from freezeflow.engine.unchanged import Record
    from freezeflow.graph.model import Model
    from freezeflow.plan import Plan
    from freezeflow.settings.settings import Settings
    from freezeflow.spec.recipe import Recipe
    from freezeflow.store.store import Store


def load_recipes(path: AnyPath, *, set_vars: Mapping[str, str] | None = None) -> Sequence[Recipe]:
    """Reads and checks a recipe file.

    Args:
        path: Its file.
        set_vars: Values for variables of its ``vars`` block.

    Returns:
        What it says for each of its models, with each combination of its matrix.

    Raises:
        RecipeError: It is not valid. An error with the attribute ``problems`` holds every mistake,
            each with line and column.
    """
    from freezeflow.spec.recipe import load_recipes as load

    return load(Path(path), set_vars=set_vars).recipes


def load_plans(
    recipe: AnyPath | Recipe,
    *,
    set_vars: Mapping[str, str] | None = None,
    cache_dir: AnyPath | None = None,
) -> tuple[Plan, ...]:
    """The steps of a recipe for each of its models, in an order in which they can run.

    Args:
        recipe: Its file, or what was loaded for one model.
        set_vars: Values for variables of its ``vars`` block; only for a file.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        RecipeError: The recipe is not valid.
        FreezeflowError: The cache cannot be read or written.
    """
    from freezeflow.plan import compiled_plans, make_plan

    if not isinstance(recipe, str | os.PathLike):
        return (make_plan(recipe),)
    with open_store(cache_dir, Path(recipe).parent) as store:
        return compiled_plans(Path(recipe), store.folder / "plans", set_vars=set_vars)


def recipe_files(recipes: Sequence[AnyPath]) -> list[Path]:
    """Files of recipes: those named, and of a folder all recipes in it and below.

    Raises:
        UsageError: A folder has no recipe.
    """
    from freezeflow.spec.folders import recipes_in

    return [file for recipe in recipes for file in recipes_in(Path(recipe))]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What `load_batch` found.

    Args:
        plans: The plans of all recipes that are valid, each recipe's once.
        mistakes: What is wrong with the others.
    """

    plans: tuple[Plan, ...]
    mistakes: tuple[RecipeError, ...]


def load_batch(
    recipes: Sequence[AnyPath],
    *,
    set_vars: Mapping[str, str] | None = None,
    cache_dir: AnyPath | None = None,
) -> Batch:
    """The plans of many recipes.

    Args:
        recipes: Their files; of a folder all recipes in it and below.
        set_vars: Values for variables of their ``vars`` blocks.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        UsageError: A folder has no recipe.
        FreezeflowError: The cache cannot be read or written.
    """
    from freezeflow.plan import compiled_plans

    files = recipe_files(recipes)
    plans: dict[tuple[Path, str], Plan] = {}
    mistakes = []
    with open_store(cache_dir, *_parents(files)) as store:
        for file in files:
            try:
                for plan in compiled_plans(file, store.folder / "plans", set_vars=set_vars):
                    plans[plan.recipe, plan.name] = plan
            except RecipeError as error:
                mistakes.append(error)
    return Batch(plans=tuple(plans.values()), mistakes=tuple(mistakes))


def choose(
    plans: Sequence[Plan],
    *,
    select: Sequence[str] = (),
    changed_since: str | None = None,
    failed: bool = False,
    shard: Shard | None = None,
    cache_dir: AnyPath | None = None,
) -> tuple[Plan, ...]:
    """Those of many plans that are meant, by all that is said.

    Args:
        plans: The plans, from `load_batch`.
        select: Patterns of names; a plan must fit one of them.
        changed_since: A git revision: only plans whose recipe, model or inputs differ from it, or
            are not in git yet.
        failed: Only plans that did not come through when they last ran.
        shard: Only one of several parts, alike in size.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        UsageError: A pattern fits nothing, or git cannot tell.
    """
    from freezeflow.engine import choosing
    from freezeflow.plan import selected

    chosen = selected(plans, select)
    if changed_since is not None:
        chosen = choosing.changed_since(chosen, changed_since)
    if failed:
        with open_store(cache_dir, *_folders(plans)) as store:
            chosen = choosing.failed_last_time(chosen, store)
    return chosen if shard is None else choosing.in_shard(chosen, shard)


def up_to_date_record(
    recipes: Sequence[AnyPath],
    request: Json = None,
    *,
    set_vars: Mapping[str, str] | None = None,
    cache_dir: AnyPath | None = None,
) -> Record | None:
    """The record that every step of some recipes is cached, which may be there or not.

    Args:
        recipes: Their files, or folders of them.
        request: What else tells this request from others.
        set_vars: Values for variables of their ``vars`` blocks.
        cache_dir: The cache's folder; None for what the settings say.

    Returns:
        The record; None where a recipe has no kept plans that count.
    """
    from freezeflow.engine.unchanged import Record
    from freezeflow.plan import kept_plans_digest

    files = recipe_files(recipes)
    with open_store(cache_dir, *_parents(files)) as store:
        folder = store.folder / "plans"
        digests = [kept_plans_digest(file, folder, set_vars=set_vars) for file in files]
        made_of = [digest for digest in digests if digest is not None]
        if len(made_of) < len(digests):
            return None
        paths = [os.path.abspath(file) for file in files]
        return Record(store, [paths, dict(set_vars or {}), request], made_of)


def keep_up_to_date(
    record: Record,
    plans: Sequence[Plan],
    result: RunResult,
    *,
    began_ns: int,
    cache_dir: AnyPath | None = None,
) -> None:
    """Puts on record that every step is cached after a run.

    Args:
        record: That of the recipes, from before the run.
        plans: What has run.
        result: What came of it; no step has failed or was skipped.
        began_ns: When it began, in ns since the epoch.
        cache_dir: The cache's folder; None for what the settings say.
    """
    with open_store(cache_dir, *_folders(plans)) as store:
        record.keep(plans, result, store, began_ns)


def run(
    recipe: AnyPath | Recipe | Plan | Sequence[AnyPath | Recipe | Plan],
    *,
    set_vars: Mapping[str, str] | None = None,
    jobs: int | None = None,
    executor: str | None = None,
    mem_limit: int | None = None,
    step_timeout: float | None = None,
    retries: int | None = None,
    force: bool = False,
    keep_going: bool | None = None,
    only: str | None = None,
    locked: bool = False,
    cache_dir: AnyPath | None = None,
    on_event: OnEvent | None = None,
) -> RunResult:
    """Runs every step that is not cached.

    Args:
        recipe: A recipe's file, what was loaded for one model, or a plan; or several of them.
        set_vars: Values for variables of the recipes' ``vars`` blocks; for files.
        jobs: Steps that run side by side; None for what the settings say, as for these four:
        executor: Where steps run: ``local``, ``dask://host:port``, ``dask-local:N``, or one that a
            package offers; there `jobs` does not matter.
        mem_limit: Bytes of memory that running steps may take together.
        step_timeout: Seconds after which a step in a process of its own is ended.
        retries: How often a step is tried again whose process died, ran out of memory, or took too
            long; a refusal never is.
        force: Run every step, also what is cached.
        keep_going: When a step fails, go on with those that do not need it; None for what the
            settings say.
        only: Run only the steps of this stage or with this id, and what they need.
        locked: Refuse to differ from the recipes' locks.
        cache_dir: The cache's folder; None for what the settings say.
        on_event: Told what happens, in this thread (`freezeflow.engine.events`).

    Returns:
        How each step ended. A step that fails is in there, not raised.

    Raises:
        RecipeError: A recipe is not valid; nothing has run.
        UsageError: `only` names no step, two recipes write the same file, or a recipe has no lock.
        ValidationFailed: Something differs from a lock: it says which lines do, and why.
        FreezeflowError: The cache cannot be read or written.
        KeyboardInterrupt: Nothing partial is left. Where steps run side by side, those that have begun
            are finished, unless Ctrl-C is pressed again.
    """
    from freezeflow.engine.choosing import note_failures
    from freezeflow.engine.events import RunWarned, ignore
    from freezeflow.engine.options import RunOptions
    from freezeflow.engine.run import run_plans
    from freezeflow.plan import Plan

    given = [recipe] if isinstance(recipe, str) or not isinstance(recipe, Sequence) else recipe
    plans: list[Plan] = []
    for item in given:
        if isinstance(item, Plan):
            plans.append(item)
        else:
            plans += load_plans(item, set_vars=set_vars, cache_dir=cache_dir)
    _check_outputs(plans)
    flags = {
        "jobs": jobs,
        "executor": executor,
        "mem_limit": mem_limit,
        "step_timeout": step_timeout,
        "retries": retries,
        "keep_going": keep_going,
        "cache_dir": cache_dir,
    }
    settings = load_settings(*_folders(plans), flags=flags)
    options = RunOptions(
        jobs=settings.jobs,
        force=force,
        keep_going=settings.keep_going,
        only=only,
        remote=settings.remote,
        step_seconds=settings.step_timeout,
        retries=settings.retries,
        mem_limit=settings.mem_limit,
    )
    with open_store(settings.cache_dir) as store:
        listener = on_event or ignore
        if locked:
            from freezeflow.release.locking import hold_to_locks

            listener = hold_to_locks(plans, store, listener)
        if settings.executor != "local":
            from freezeflow.engine.chains import run_on_pool

            result = run_on_pool(plans, store, options, settings.executor, listener)
        else:
            result = run_plans(plans, store, options, listener)
        try:
            note_failures(plans, result, store)
        except FreezeflowError as error:
            # What came of the run is worth more than what `--failed` would take next time.
            listener(RunWarned(message=f"it is not noted what failed: {error}"))
        return result


def forecast(
    plans: Sequence[Plan],
    *,
    cache_dir: AnyPath | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> tuple[Forecast, ...]:
    """What `run` would do with each step, and why: which field of its key changed, from what to what.

    Args:
        plans: Plans, from `load_plans`.
        cache_dir: The cache's folder; None for what the settings say.
        on_warning: Told what is wrong with the shared cache, where there is one: it is asked what it
            has, and nothing is brought from it.

    Raises:
        UsageError: Two recipes write the same file.
        FreezeflowError: The cache cannot be read, or a file that a step reads is missing.
    """
    from freezeflow.engine.forecast import forecast_plans

    _check_outputs(plans)
    remote = load_settings(*_folders(plans)).remote
    with open_store(cache_dir, *_folders(plans)) as store:
        if not remote.url:
            return forecast_plans(plans, store)
        from freezeflow.engine.shared import SharedCache

        options = dataclasses.replace(remote, push=False)
        shared = SharedCache(options, store, on_warning or (lambda message: None))
        try:
            return forecast_plans(plans, store, shared)
        finally:
            shared.close()


def cached_log(plan: Plan, step: str, *, cache_dir: AnyPath | None = None) -> str:
    """What a step logged, from the cache; empty where it logged nothing.

    Args:
        plan: The plan, from `load_plans`.
        step: The id of one of its steps.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        UsageError: There is no such step.
        FreezeflowError: It is not cached.
    """
    from freezeflow.engine.cached import cached_action

    with open_store(cache_dir, plan.recipe.parent) as store:
        log = cached_action(plan, step, store).outputs.log
        return "" if log is None else store.blobs.read(log).decode(errors="replace")


def cached_model(plan: Plan, step: str, *, cache_dir: AnyPath | None = None) -> Model:
    """The model that a step gave, from the cache.

    Args:
        plan: The plan, from `load_plans`.
        step: The id of one of its steps.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        UsageError: There is no such step.
        FreezeflowError: It is not cached.
    """
    from freezeflow.engine.cached import cached_model as find

    with open_store(cache_dir, plan.recipe.parent) as store:
        return find(plan, step, store)


def load_settings(*folders: Path, flags: Mapping[str, object] | None = None) -> Settings:
    """The settings that hold for what lies in some folders.

    Args:
        folders: Folders of recipes; none for the current folder.
        flags: Values that go before all else, by the setting's name; None counts as not given.

    Raises:
        UsageError: A settings file or a variable is wrong, or the folders belong to several projects.
    """
    from freezeflow.settings.resolve import settings_for

    return settings_for(folders or [Path.cwd()], flags)


def _parents(files: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys(file.parent for file in files))


def _folders(plans: Sequence[Plan]) -> list[Path]:
    """The folders of the plans' recipes."""
    return list(dict.fromkeys(plan.recipe.parent for plan in plans))


def _check_outputs(plans: Sequence[Plan]) -> None:
    """Refuses recipes that write over each other's files; each recipe itself is checked for that.

    Raises:
        UsageError: Two of them write the same file.
    """
    if len({plan.recipe for plan in plans}) < 2:
        return
    writers: dict[Path, Plan] = {}
    for plan in plans:
        for path in (path for step in plan.steps for path in step.output_files):
            other = writers.setdefault(path, plan)
            if other is not plan:
                raise UsageError(
                    f"{other.recipe.name} and {plan.recipe.name} both write {path}",
                    hint="Run one of them, or let them write different files.",
                )


@contextlib.contextmanager
def open_store(cache_dir: AnyPath | None, *projects: Path) -> Iterator[Store]:
    """The cache in a folder; without one, in that which the settings of projects' folders name."""
    from freezeflow.store.store import Store

    folder = load_settings(*projects).cache_dir if cache_dir is None else cache_dir
    store = Store.open(Path(folder))
    try:
        yield store
    finally:
        store.close()
