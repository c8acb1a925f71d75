"""Collects the mistakes of one recipe while it is checked."""

from __future__ import annotations

from freezeflow.spec.problems import Problem
from freezeflow.spec.tree import Document, Path_


class Notes:
    """Mistakes so far, and what else the check has looked at.

    Args:
        document: The recipe's text.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = list(document.problems)
        self.files: dict[str, bool] = {}
        self.environment: dict[str, str | None] = {}
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
