"""Which of many plans are meant: those that failed last time, that git says have changed, of one shard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from freezeflow.engine.options import Shard
from freezeflow.engine.results import RunResult
from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.plan import Plan
from freezeflow.store.files import write_checked_later
from freezeflow.store.store import Store
from freezeflow.values import Digest, ModelSource

# ---------------------------------------------------------------- what failed


def failed_last_time(plans: Sequence[Plan], store: Store) -> tuple[Plan, ...]:
    """The plans that did not come through when they last ran: a step failed, or was not reached."""
    names = {recipe: _failed_names(recipe, store) for recipe in {plan.recipe for plan in plans}}
    return tuple(plan for plan in plans if plan.name in names[plan.recipe])


def note_failures(plans: Sequence[Plan], result: RunResult, store: Store) -> None:
    """Remembers for each recipe which plans did not come through; others stay as they were."""
    names: dict[Path, set[str]] = {}
    failed: dict[Path, set[str]] = {}
    for plan in plans:
        names.setdefault(plan.recipe, set()).add(plan.name)
    for step in result.steps:
        if step.status in ("failed", "skipped"):
            failed.setdefault(step.ref.recipe, set()).add(step.ref.plan)
    for recipe, ran in names.items():
        before = _failed_names(recipe, store)
        now = (before - ran) | failed.get(recipe, set())
        if now != before:
            data = json.dumps({"recipe": str(recipe), "failed": sorted(now)}).encode()
            write_checked_later(_failed_file(recipe, store), data, mode=0o644)


def _failed_names(recipe: Path, store: Store) -> set[str]:
    try:
        data = json.loads(_failed_file(recipe, store).read_bytes())
        return set(data["failed"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _failed_file(recipe: Path, store: Store) -> Path:
    return store.folder / "failed" / f"{Digest.of(os.fsencode(recipe)).hex[:32]}.json"


# ---------------------------------------------------------------- what git says


def changed_since(plans: Sequence[Plan], revision: str) -> tuple[Plan, ...]:
    """The plans whose recipe, model or inputs differ from a revision, or are new to git.

    Raises:
        UsageError: A recipe is in no repository, or git does not know the revision.
    """
    changes: dict[Path, _Changes] = {}
    for folder in {plan.recipe.parent for plan in plans}:
        changes[folder] = _Changes(_changed_files(folder, revision))
    return tuple(plan for plan in plans if changes[plan.recipe.parent].touch(plan))


class _Changes:
    """Files that have changed."""

    def __init__(self, files: set[str]) -> None:
        self._files = files
        # With each file the folders that it is in.
        self._folders = {above for file in files for above in _above(file)}
        self._known: dict[ModelSource, bool] = {}

    def touch(self, plan: Plan) -> bool:
        files = {str(path) for path in (plan.recipe, *plan.bases)}
        files.update(str(path) for step in plan.steps for path in step.input_files.values())
        return not files.isdisjoint(self._files) or any(
            self._touches(source) for source in {step.source for step in plan.steps}
        )

    def _touches(self, source: ModelSource) -> bool:
        if source not in self._known:
            paths = [str(p) for p in (source.path, source.meta_graph, source.weights) if p]
            self._known[source] = any(map(self._has, paths))
        return self._known[source]

    def _has(self, path: str) -> bool:
        """The file, something in the folder, or one of the files of a checkpoint with that prefix."""
        if path in self._files or path in self._folders:
            return True
        folder = os.path.dirname(path)
        return folder in self._folders and any(f.startswith(f"{path}.") for f in self._files)


def _above(file: str) -> list[str]:
    return [str(folder) for folder in Path(file).parents]


def _changed_files(folder: Path, revision: str) -> set[str]:
    root = _git(folder, "rev-parse", "--show-toplevel").strip()
    _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    changed = _git(Path(root), "diff", "--name-only", "-z", "--no-renames", revision, "--")
    new = _git(Path(root), "ls-files", "--others", "--exclude-standard", "-z")
    return {os.path.join(root, name) for name in f"{changed}\0{new}".split("\0") if name}


def _git(folder: Path, *words: str) -> str:
    import subprocess

    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise UsageError("--changed-since needs git, which is not installed") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        what = said[-1] if said else f"there is no revision {words[-1].removesuffix('^{commit}')!r}"
        raise UsageError(f"git: {what}", where=str(folder), hint="Name a commit, branch or tag.")
    return os.fsdecode(done.stdout)


# ---------------------------------------------------------------- shards


def in_shard(plans: Sequence[Plan], shard: Shard) -> tuple[Plan, ...]:
    """The plans of one shard.

    The largest model goes first, each to the shard that has the least so far. So it matters not in
    which order the plans are named, and every machine that has the same models finds the same.
    """
    sizes: dict[ModelSource, int] = {}
    for plan in plans:
        for step in plan.steps:
            if step.source not in sizes:
                sizes[step.source] = source_bytes(step.source)
    weights = {
        (plan.recipe.name, plan.name, str(plan.recipe)): _weight(plan, sizes) for plan in plans
    }
    chosen = _deal(weights, shard)
    return tuple(p for p in plans if (p.recipe.name, p.name, str(p.recipe)) in chosen)


def _deal(weights: Mapping[tuple[str, str, str], int], shard: Shard) -> set[tuple[str, str, str]]:
    loads = [0] * shard.of
    chosen = set()
    for place in sorted(weights, key=lambda place: (-weights[place], place)):
        number = loads.index(min(loads))
        loads[number] += weights[place]
        if number == shard.number - 1:
            chosen.add(place)
    return chosen


# What a step costs whatever the size of its model, in bytes that are as quick.
_STEP_BYTES = 1 << 20


def _weight(plan: Plan, sizes: Mapping[ModelSource, int]) -> int:
    sources = {step.source for step in plan.steps}
    return _STEP_BYTES * len(plan.steps) + sum(sizes[source] for source in sources)


def source_bytes(source: ModelSource) -> int:
    """How large a model's files are together; 0 where they cannot be found."""
    from freezeflow.sources.registry import source_files

    try:
        return sum(os.stat(path).st_size for path in source_files(source))
    except (OSError, FreezeflowError):
        return 0  # its `load` tells what is wrong
