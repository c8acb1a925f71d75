"""Puts the sources of settings together: flags over environment over the project's over the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from freezeflow.errors import UsageError
from freezeflow.settings.files import (
    Names,
    SettingsFile,
    find_project_file,
    find_user_file,
    parse,
    place_of,
)
from freezeflow.settings.settings import BY_NAME, PREFIX, SETTINGS, Setting, Settings, make_settings
from freezeflow.values import Json

if TYPE_CHECKING:
    from freezeflow.spec.problems import Problem

# Tables, whose own names are settings.
_TABLES = {setting.name.partition(".")[0] for setting in SETTINGS if "." in setting.name}

# Part of a name that says that a secret was written down.
_SECRETIVE = (
    "secret",
    "password",
    "token",
    "credential",
    "signing_key",
    "access_key",
    "account_key",
)


class InvalidSettings(UsageError):
    """A settings file with mistakes, all of them, each with its line."""

    problems: tuple[Problem, ...] = ()

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        number = len(self.problems)
        super().__init__(f"{number} mistake{'s' if number != 1 else ''} in {problems[0].file}")

    def __str__(self) -> str:
        from freezeflow.spec.problems import render_problems

        return render_problems(self.problems) or super().__str__()


class Chosen(NamedTuple):
    """A value, and where it comes from: ``default``, a variable, a flag, or a file with its line."""

    value: object
    origin: str


def settings_for(folders: Sequence[Path], flags: Mapping[str, object] | None = None) -> Settings:
    """The settings that hold for what lies in some folders.

    Args:
        folders: Folders of recipes, or the current one.
        flags: Values that were chosen for this call, by the setting's name; None counts as not chosen.

    Raises:
        UsageError: A file or a variable is wrong, or the folders belong to several projects.
    """
    chosen = resolve(folders, flags)
    return make_settings({name: each.value for name, each in chosen.items()})


def resolve(
    folders: Sequence[Path], flags: Mapping[str, object] | None = None
) -> dict[str, Chosen]:
    """Every setting with its value and where that comes from; arguments as for `settings_for`."""
    chosen = {setting.name: Chosen(_default(setting), "default") for setting in SETTINGS}
    for file in (find_user_file(), _project_file(folders)):
        if file is not None:
            chosen.update(_from_file(file))
    chosen.update(_from_environment())
    for name, value in (flags or {}).items():
        if value is not None:
            chosen[name] = Chosen(value, f"--{name.replace('_', '-').replace('.', '-')}")
    return chosen


def unknown_variables() -> list[tuple[str, str]]:
    """Variables that look like a setting's and are none, with the one that was probably meant.

    Recipes may use variables of any name, so this is no mistake, and told only where it is asked for.
    """
    from freezeflow.suggestions import near_miss

    known = {setting.variable.removeprefix(PREFIX) for setting in SETTINGS}
    names = [name.removeprefix(PREFIX) for name in sorted(os.environ) if name.startswith(PREFIX)]
    nearest = {name: near_miss(name, known) for name in names if name not in known}
    return [(PREFIX + name, PREFIX + near) for name, near in nearest.items() if near]


def _default(setting: Setting) -> object:
    return setting.default() if callable(setting.default) else setting.default


def _project_file(folders: Sequence[Path]) -> SettingsFile | None:
    files = {
        file.path: file for folder in dict.fromkeys(folders) if (file := find_project_file(folder))
    }
    if len(files) > 1:
        names = " and ".join(sorted(map(str, files)))
        raise UsageError(
            f"the recipes belong to projects with settings of their own: {names}",
            hint="Run the recipes of each project apart.",
        )
    return next(iter(files.values()), None)


def _from_environment() -> dict[str, Chosen]:
    chosen = {}
    for setting in SETTINGS:
        given = os.environ.get(setting.variable)
        if not given:
            continue
        try:
            value = setting.kind(given, Path.cwd())
        except ValueError as error:
            hidden = setting.secret or setting.name == "remote.url"
            what = "its value" if hidden else repr(given)
            raise UsageError(f"{what} {error}", where=setting.variable) from None
        chosen[setting.name] = Chosen(value, setting.variable)
    return chosen


def _from_file(file: SettingsFile) -> dict[str, Chosen]:
    """The settings in a file.

    Raises:
        UsageError: It is not TOML, or has mistakes; all are told at once.
    """
    chosen: dict[str, Chosen] = {}
    problems: list[Problem] = []
    for names, given in _entries(parse(file), ()):
        setting = BY_NAME.get(".".join(names))
        if setting is None or setting.secret:
            problems.append(_misplaced(file, names))
            continue
        try:
            value = setting.kind(given, file.path.parent)
        except ValueError as error:
            problem = _problem(file, names, f"{setting.name} {error}", "")
            # What is wrong with an address may be a password in it.
            problems.append(_hidden(problem) if setting.name == "remote.url" else problem)
            continue
        chosen[setting.name] = Chosen(value, f"{file.path}:{place_of(file, names).line}")
    if problems:
        raise InvalidSettings(sorted(problems, key=lambda problem: problem.mark))
    return chosen


def _entries(data: Json, above: Names) -> Iterator[tuple[Names, Json]]:
    """Names and values; ``remote = "URL"`` is short for a table with only the URL."""
    if not isinstance(data, dict):
        yield above, data
        return
    for name, value in data.items():
        names = (*above, name)
        if names[0] not in _TABLES or len(names) > 1:
            yield names, value
        elif isinstance(value, dict):
            yield from _entries(value, names)
        else:
            yield (*names, "url"), value


def _misplaced(file: SettingsFile, names: Names) -> Problem:
    """The mistake in a name that is no setting of a file."""
    from freezeflow.spec.problems import shown
    from freezeflow.suggestions import near_miss

    if any(word in names[-1].lower() for word in _SECRETIVE):
        setting = BY_NAME.get(".".join(names))
        variable = setting.variable if setting else "the variable that the service itself reads"
        hint = f"Take it out, and set it in the environment: {variable}."
        return _hidden(_problem(file, names, "a secret does not belong into a file", hint))
    known = [setting.name for setting in SETTINGS if not setting.secret]
    near = near_miss(".".join(names), [*known, *_TABLES])
    hint = f"Did you mean {near!r}?" if near else "`freezeflow config` shows all settings."
    return _problem(file, names, f"there is no setting {shown('.'.join(names))}", hint)


def _hidden(problem: Problem) -> Problem:
    """Without the file's line, which shows what must not be seen."""
    return problem._replace(source_line="")


def _problem(file: SettingsFile, names: Names, message: str, hint: str) -> Problem:
    from freezeflow.spec.problems import Mark, Problem

    place = place_of(file, names)
    return Problem(
        str(file.path), Mark(place.line, place.column, place.length), message, hint, place.source
    )
