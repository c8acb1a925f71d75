"""Mistakes in a recipe: where each one is, what is wrong, what to do; and how people see them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from freezeflow.errors import RecipeError
from freezeflow.values import Json

# Columns of a source line that are shown; of a longer one, the part around the mistake.
_SHOWN_COLUMNS = 100


class Mark(NamedTuple):
    """A place in a file; line and column count from 1, the length is in characters."""

    line: int
    column: int
    length: int = 1


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
            "length": self.mark.length,
            "message": self.message,
            "hint": self.hint,
        }


class InvalidRecipe(RecipeError):
    """A recipe with mistakes, all of them.

    Args:
        problems: The mistakes, in the order of the file.
    """

    # An error that comes back from plain data has only its message.
    problems: tuple[Problem, ...] = ()

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda p: (p.mark, p.message)))
        count = len(self.problems)
        super().__init__(f"{count} mistake{'s' if count != 1 else ''} in {problems[0].file}")

    def __str__(self) -> str:
        return render_problems(self.problems) or super().__str__()


def render_problems(problems: Iterable[Problem], *, color: bool = False) -> str:
    """The mistakes for people: ``file:line:column: message``, the line with a caret, the hint."""
    return "\n".join(_render(problem, color) for problem in problems)


def _render(problem: Problem, color: bool) -> str:
    bold, red, plain = ("\033[1m", "\033[31m", "\033[0m") if color else ("", "", "")
    place = f"{problem.file}:{problem.mark.line}:{problem.mark.column}"
    lines = [f"{bold}{place}:{plain} {problem.message}"]
    if problem.source_line:
        number = str(problem.mark.line)
        text, before, under = _excerpt(problem.source_line, problem.mark)
        lines.append(f"  {number} | {text}")
        lines.append(f"  {' ' * len(number)} | {' ' * before}{red}{'^' * under}{plain}")
    if problem.hint:
        lines.append(f"  {problem.hint}")
    return "\n".join(lines)


def _excerpt(line: str, mark: Mark) -> tuple[str, int, int]:
    """The part of a line around a mark, the width before the mark, and the width of the mark."""
    clean = "".join(c if c.isprintable() else " " for c in line.rstrip())
    start = max(0, mark.column - 1 - _SHOWN_COLUMNS // 2) if len(clean) > _SHOWN_COLUMNS else 0
    shown = clean[start : start + _SHOWN_COLUMNS]
    lead = "..." if start else ""
    tail = "..." if start + _SHOWN_COLUMNS < len(clean) else ""
    at = mark.column - 1 - start
    under = _width(shown[at : at + mark.length])
    return f"{lead}{shown}{tail}", len(lead) + _width(shown[:at]), max(1, under)


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def shown(word: str, limit: int = 60) -> str:
    """A word of the recipe in quotes: one line, and not too long."""
    return repr(word if len(word) <= limit else f"{word[: limit - 3]}...")
