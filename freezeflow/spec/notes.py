"""Collects the mistakes of one recipe while it is checked."""

from __future__ import annotations

import dataclasses

from freezeflow.spec.problems import Problem
from freezeflow.spec.tree import Document, Path_


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looked:
    """What a check has looked at besides the recipe's text.

    Attributes:
        files: Path to whether it is there.
        environment: Variable to its value.
        globs: Pattern and folder to a digest of what it found.
        texts: Other recipes, to a digest of what is in them.
    """

    files: dict[str, bool] = dataclasses.field(default_factory=dict)
    environment: dict[str, str | None] = dataclasses.field(default_factory=dict)
    globs: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)


class Notes:
    """Mistakes so far.

    Args:
        document: The recipe's text.
        looked: Gets what the check looks at; several notes may share one.
    """

    def __init__(self, document: Document, looked: Looked) -> None:
        self.document = document
        self.looked = looked
        self.problems: list[Problem] = list(document.problems)
        # With every path, those of what it stands in.
        self._broken: set[Path_] = set()
        self._spoiled: set[Path_] = set()
        for path in document.spoiled:
            self.spoil(path)

    def add(self, path: Path_, message: str, hint: str = "", *, key: bool = False) -> None:
        """Notes a mistake at a value, or at its key."""
        if path not in self._spoiled:
            self._break(path)
            self.problems.append(self.document.problem(path, message, hint, key=key))

    def spoil(self, path: Path_) -> None:
        """What a value is cannot be known; whatever else is wrong with it only follows from that."""
        self._break(path)
        self._spoiled.add(path)

    def broken(self, path: Path_) -> bool:
        """Whether a mistake was noted at or below a path."""
        return path in self._broken

    def _break(self, path: Path_) -> None:
        self._broken.update(path[:length] for length in range(len(path) + 1))
