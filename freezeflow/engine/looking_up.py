"""Finds out which steps have their results already."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence

from freezeflow.engine.tasks import published
from freezeflow.plan import Step
from freezeflow.store.actions import Action
from freezeflow.store.store import Store
from freezeflow.values import Digest


def cached(wanted: Sequence[tuple[Digest, Step]], store: Store) -> list[tuple[Action | None, str]]:
    """For each step its action if it counts, and what is damaged or missing if it does not.

    Args:
        wanted: Keys of steps, with the steps.
        store: The store.

    Returns:
        An action and an empty text; or None and why a known action does not count; or None and an
        empty text for a step that has never run.
    """
    known = store.actions.get([key for key, _ in wanted])
    found = [(step, known[key]) for key, step in wanted if key in known]
    lost = _lost_blobs([action for _, action in found], store)
    changed = _changed_files(found, store)
    answers: list[tuple[Action | None, str]] = []
    for key, step in wanted:
        action = known.get(key)
        reason = _reason(step, action, lost, changed) if action else ""
        answers.append((None if reason else action, reason))
    return answers


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Looks for no garbage meanwhile.

    Look-ups of thousands of steps make objects that all stay alive; the collector would go through
    them again and again, which takes a third of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _lost_blobs(actions: Sequence[Action], store: Store) -> dict[Digest, str]:
    needed = {digest for action in actions for digest in action.outputs.blobs()}
    return {
        blob.digest: f"the cache is damaged: {blob.where} {blob.message}"
        for blob in store.blobs.lost(needed)
    }


def _changed_files(found: Sequence[tuple[Step, Action]], store: Store) -> set[str]:
    expected = {
        file.path: (file.sha256, file.nbytes)
        for step, action in found
        if action.outputs.files
        for file in published(step, action)
    }
    unchanged = store.stats.unchanged(expected)
    return {str(path) for path in expected if path not in unchanged}


def _reason(step: Step, action: Action, lost: Mapping[Digest, str], changed: set[str]) -> str:
    """Why an action does not count; empty when it does."""
    if lost:
        for digest in action.outputs.blobs():
            if digest in lost:
                return lost[digest]
    if changed and action.outputs.files:
        for file in published(step, action):
            if str(file.path) in changed:
                return f"{file.path} was changed or removed"
    return ""
