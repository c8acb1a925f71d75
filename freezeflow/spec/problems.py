"""Mistakes in a recipe: where each one is, what is wrong, what to do; and how people see them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from freezeflow.errors import RecipeError
from freezeflow.values import Json


class Mark(NamedTuple):
    """A place in a file; line and column count from 1."""

    line: int
    column: int


class Problem(NamedTuple):
    """One mistake.

    Args:
        file: The recipe, as the user named it.
        mark: Where.
        message: What is wrong.
        hint: What to do; may be empty.
        source_line: The line of the file, for the caret; may be empty.
    """

    file: str
    mark: Mark
    message: str
    hint: str
    source_line: str

    def to_json(self) -> Json:
        return {
            "file": self.file,
            "line": self.mark.line,
            "column": self.mark.column,
            "message": self.message,
            "hint": self.hint,
        }


class InvalidRecipe(RecipeError):
    """A recipe with mistakes, all of them.

    Args:
        problems: The mistakes, in the order of the file.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.mark, p.message)))
        count = len(self.problems)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in {problems[0].file}")

    def __str__(self) -> str:
        return render_problems(self.problems)


def render_problems(problems: Iterable[Problem], *, color: bool = False) -> str:
    """The mistakes for people: ``file:line:column: message``, the line with a caret, the hint."""
    return "\n".join(_render(problem, color) for problem in problems)


def _render(problem: Problem, color: bool) -> str:
    bold, red, plain = ("\033[1m", "\033[31m", "\033[0m") if color else ("", "", "")
    place = f"{problem.file}:{problem.mark.line}:{problem.mark.column}"
    lines = [f"{bold}{place}:{plain} {problem.message}"]
    if problem.source_line:
        number = str(problem.mark.line)
        # Tabs stay tabs, so that the caret stands under its character.
        before = problem.source_line[: problem.mark.column - 1]
        gap = "".join("\t" if c == "\t" else " " for c in before)
        lines.append(f"  {number} | {problem.source_line}")
        lines.append(f"  {' ' * len(number)} | {gap}{red}^{plain}")
    if problem.hint:
        lines.append(f"  {problem.hint}")
    return "\n".join(lines)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known word, or with all of them where there are few."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known here: {', '.join(names)}." if 0 < len(names) <= 12 else ""
