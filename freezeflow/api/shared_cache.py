"""What freezeflow offers for a cache that is shared with others: bring results from it, take them there."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.api.recipes import load_plans, load_settings, open_store
from freezeflow.errors import UsageError
from freezeflow.values import AnyPath

if TYPE_CHECKING:
    from freezeflow.engine.shared import SharedCache, Traffic
    from freezeflow.plan import Plan
    from freezeflow.store.store import Store


def pull(
    recipes: Sequence[AnyPath] | None = None,
    *,
    set_vars: Mapping[str, str] | None = None,
    remote: str | None = None,
    cache_dir: AnyPath | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Traffic:
    """Brings results from the shared cache into the local one, with the weights that are not here.

    Args:
        recipes: For the steps of these recipes, with the files that those publish; None for
            everything there is.
        set_vars: Values for variables of the recipes' ``vars`` blocks.
        remote: The shared cache's address; None for what the settings say.
        cache_dir: The cache's folder; None for what the settings say.
        on_warning: Told what is wrong with it.

    Raises:
        UsageError: There is no shared cache.
        MissingExtra: A package that it needs is not installed.
        FreezeflowError: It fails, or the local cache cannot be written.
    """
    from freezeflow.engine.sharing import pull as bring

    with _opened(recipes, set_vars, remote, cache_dir, on_warning, push=False) as opened:
        return bring(*opened)


def push(
    recipes: Sequence[AnyPath] | None = None,
    *,
    set_vars: Mapping[str, str] | None = None,
    remote: str | None = None,
    cache_dir: AnyPath | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Traffic:
    """Takes results from the local cache to the shared one; errors as for `pull`.

    Args:
        recipes: Of the steps of these recipes, as far as they are cached; None for all.
        set_vars: Values for variables of the recipes' ``vars`` blocks.
        remote: The shared cache's address; None for what the settings say.
        cache_dir: The cache's folder; None for what the settings say.
        on_warning: Told what is wrong with it.
    """
    from freezeflow.engine.sharing import push as take

    with _opened(recipes, set_vars, remote, cache_dir, on_warning, push=True) as opened:
        return take(*opened)


@contextlib.contextmanager
def _opened(
    recipes: Sequence[AnyPath] | None,
    set_vars: Mapping[str, str] | None,
    remote: str | None,
    cache_dir: AnyPath | None,
    on_warning: Callable[[str], None] | None,
    *,
    push: bool,
) -> Iterator[tuple[list[Plan] | None, Store, SharedCache]]:
    """The plans of recipes (None for no recipes), and both caches; arguments as for `pull`."""
    from freezeflow.engine.shared import SharedCache

    folders = [Path(recipe).parent for recipe in recipes or ()]
    settings = load_settings(*folders, flags={"cache_dir": cache_dir, "remote.url": remote})
    if not settings.remote.url:
        hint = "Name one: --remote, or the setting remote.url."
        raise UsageError("there is no shared cache", hint=hint)
    plans = None
    if recipes is not None:
        loaded = (load_plans(each, set_vars=set_vars, cache_dir=cache_dir) for each in recipes)
        plans = list(itertools.chain.from_iterable(loaded))
    options = dataclasses.replace(settings.remote, push=push)
    with open_store(settings.cache_dir) as store, store.in_use():
        warn = on_warning or (lambda message: None)
        shared = SharedCache(options, store, warn, forgiving=False)
        try:
            yield plans, store, shared
        finally:
            shared.close()
