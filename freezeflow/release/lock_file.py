"""The text of a lock: YAML, sorted, one block for each model, so that git merges it line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from freezeflow.errors import UsageError
from freezeflow.spec.scalars import parse_scalar
from freezeflow.store.files import write_atomically
from freezeflow.store.hashing import reading_failed
from freezeflow.values import Json

_HEAD = """\
# What this recipe gives, to the byte. Written by `freezeflow lock`; commit it, do not edit it.
"""

_MAX_DEPTH = 30

Path_ = tuple[str | int, ...]


class LockText(NamedTuple):
    """What a lock's file says: its values, the line at which each one stands, and all lines."""

    data: Json
    lines: dict[Path_, int]
    source: list[str]


def lock_path(recipe: Path) -> Path:
    """Where the lock of a recipe is: ``digits.yaml.lock`` beside ``digits.yaml``."""
    return recipe.with_name(recipe.name + ".lock")


def write_lock_file(path: Path, data: Json) -> None:
    """Writes a lock; equal data give equal bytes.

    Raises:
        FreezeflowError: It cannot be written.
    """
    write_atomically(path, [lock_text(data).encode()])


def lock_text(data: Json) -> str:
    """The one text of a lock."""
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]  # whichever PyYAML has
        """Strings that YAML 1.2 would read as something else are put in quotes; no aliases."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    def string(dumper: Any, text: str) -> Any:
        style = None if parse_scalar(text) == text else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, string)
    text: str = yaml.dump(data, Dumper=Dumper, allow_unicode=True, width=2**30, sort_keys=True)
    return _HEAD + text


def read_lock_file(path: Path) -> LockText:
    """Reads a lock.

    Raises:
        UsageError: There is none, or it is damaged.
        FreezeflowError: It cannot be read.
    """
    try:
        return parse_lock_text(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise UsageError(
            "the recipe has no lock", where=str(path), hint="Write one: freezeflow lock RECIPE."
        ) from None
    except UnicodeDecodeError:
        raise _damaged(path, 1, "is not UTF-8") from None
    except OSError as error:
        raise reading_failed(error, path) from error


def parse_lock_text(text: str, path: Path) -> LockText:
    """Reads a lock's text.

    Args:
        text: The text.
        path: Its file, for errors.

    Raises:
        UsageError: It is damaged.
    """
    import yaml

    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise _damaged(path, line, error.problem or "is no YAML") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise _damaged(path, 1, str(error).splitlines()[0]) from None
    lines: dict[Path_, int] = {}
    return LockText(_Builder(path, lines).value(root, ()), lines, text.split("\n"))


def _damaged(path: Path, line: int, what: str) -> UsageError:
    return UsageError(
        f"the lock cannot be read: {what}",
        where=f"{path}:{line}",
        hint="Resolve what git could not merge, or write the lock anew: freezeflow lock RECIPE.",
    )


class _Builder:
    def __init__(self, path: Path, lines: dict[Path_, int]) -> None:
        self._path = path
        self._lines = lines
        self._seen: set[int] = set()

    def value(self, node: Any, place: Path_) -> Json:
        if node is None:
            return None
        line = node.start_mark.line + 1
        self._lines.setdefault(place, line)
        if id(node) in self._seen:
            raise _damaged(self._path, line, "there is an alias")
        self._seen.add(id(node))
        if len(place) > _MAX_DEPTH:
            raise _damaged(self._path, line, "is nested too deep")
        if node.id == "scalar":
            # The C parser says "" for a plain scalar, the other one None.
            return node.value if node.style else parse_scalar(node.value)
        if node.id == "sequence":
            return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
        return dict(self._pairs(node, place))

    def _pairs(self, node: Any, place: Path_) -> Iterator[tuple[str, Json]]:
        keys = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.id != "scalar" or key.value in keys:
                what = f"key {key.value!r} is there twice" if key.id == "scalar" else "a bad key"
                raise _damaged(self._path, line, what)
            keys.add(key.value)
            below = (*place, key.value)
            self._lines[below] = line
            yield key.value, self.value(value, below)
