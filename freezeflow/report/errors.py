"""Errors for people and for programs."""

from __future__ import annotations

from freezeflow.errors import FreezeflowError
from freezeflow.report.text import paint
from freezeflow.values import Json


def render_error(error: FreezeflowError, *, color: bool = False) -> str:
    """Where, what, and what to do; for a recipe every mistake, with its line."""
    problems = getattr(error, "problems", ())
    if problems:
        from freezeflow.spec.problems import render_problems

        return f"{render_problems(problems, color=color)}\n{error.message}"
    where = paint(f"{error.where}:", "bold", color=color) + " " if error.where else ""
    head = f"{paint('error:', 'red', color=color)} {where}{error.message}"
    return head + "".join(f"\n  {line}" for line in error.hint.splitlines())


def error_to_json(error: FreezeflowError) -> Json:
    """Class, message, where, hint; for a recipe also every mistake."""
    problems = getattr(error, "problems", ())
    more = {"problems": [problem.to_json() for problem in problems]} if problems else {}
    return {**error.to_data(), **more}
