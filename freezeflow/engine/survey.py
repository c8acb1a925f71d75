"""What is cached of some plans, looked up level by level; nothing runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from freezeflow.engine.keys import preimages
from freezeflow.engine.looking_up import cached
from freezeflow.engine.schedule import Schedule
from freezeflow.engine.tasks import Task, Wish, make_tasks
from freezeflow.errors import FreezeflowError
from freezeflow.plan import Plan
from freezeflow.store.actions import Action, key_of
from freezeflow.store.store import Store

Fetch = Callable[[Sequence[Wish]], object]


def look_up(
    plans: Sequence[Plan], store: Store, fetch: Fetch | None, *, only: str | None = None
) -> list[Task]:
    """The steps of plans, in their order, with the actions of those that are cached.

    Args:
        plans: The plans.
        store: The cache.
        fetch: Brings results from elsewhere into it, as far as it can; whether it has brought some.
        only: As for `freezeflow.engine.tasks.wanted`.
    """
    tasks = [task for plan in plans for task in make_tasks(plan, only)]
    schedule = Schedule({task: task.needs for task in tasks})
    while ready := schedule.take():
        keyed = []
        for task, preimage in zip(
            ready, preimages([t.key_input() for t in ready], store), strict=True
        ):
            if isinstance(preimage, FreezeflowError):
                schedule.failed(task)
            else:
                task.preimage, task.key = preimage, key_of(preimage)
                keyed.append(task)
        for task, action in zip(keyed, _actions(keyed, store, fetch), strict=True):
            task.action = action
            if action is None:
                schedule.failed(task)
            else:
                schedule.done(task)
    return tasks


def _actions(tasks: Sequence[Task], store: Store, fetch: Fetch | None) -> list[Action | None]:
    wanted = [(task.key, task.step) for task in tasks]
    found = cached(wanted, store)
    missed = [task for task, (action, _) in zip(tasks, found, strict=True) if action is None]
    if missed and fetch and fetch([task.wish() for task in missed]):
        found = cached(wanted, store)
    return [action for action, _ in found]
