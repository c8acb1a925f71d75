"""Everything that freezeflow tells a user when it cannot go on.

One base class carries *where* (a file with line and column, or the path of a node) and *hint* (what
to do next). Anything else that is raised is a bug. Errors cross processes as plain data.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FreezeflowError(Exception):
    """A failure that the user can understand and act on.

    Args:
        message: What is wrong, in one line.
        where: Where: ``recipe.yaml:3:5``, a file, or the path of a node.
        hint: What to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  {self.hint}" if self.hint else head

    def to_data(self) -> dict[str, Any]:
        """Plain data that `from_data` turns back into an error of the same class."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
        }

    @staticmethod
    def from_data(data: dict[str, Any]) -> FreezeflowError:
        """The error that `to_data` described; an unknown kind becomes a `StageFailed`."""
        kinds = {kind.__name__: kind for kind in _descendants(FreezeflowError)}
        kind = kinds.get(data["kind"], StageFailed)
        # A descendant may take other arguments; what it says is already in the message.
        error: FreezeflowError = kind.__new__(kind)
        FreezeflowError.__init__(
            error, data["message"], where=data.get("where", ""), hint=data.get("hint", "")
        )
        return error


class StageFailed(FreezeflowError):
    """A stage could not do its work: exit code 1."""


class UsageError(FreezeflowError):
    """The command line or a call asks for something that is not offered: exit code 2."""

    exit_code = 2


class RecipeError(FreezeflowError):
    """A recipe is not valid: exit code 3."""

    exit_code = 3


class ValidationFailed(FreezeflowError):
    """A result does not equal its original, or a lock does not hold: exit code 4."""

    exit_code = 4


class RuntimeRefused(ValidationFailed):
    """A runtime does not load an exported file, or does not answer a call: exit code 4."""


class ModelRefused(FreezeflowError):
    """The model is damaged, or cannot be frozen with its meaning kept: exit code 5."""

    exit_code = 5


class MissingExtra(FreezeflowError):
    """A library that an optional feature needs is not installed: exit code 2."""

    exit_code = 2


def _descendants(cls: type[FreezeflowError]) -> list[type[FreezeflowError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in _descendants(child))]
