"""How the command line tells what went wrong: one place, one form."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import click
import pytest

from freezeflow.cli import wrap
from freezeflow.errors import FreezeflowError, ModelRefused, RecipeError, ValidationFailed
from tests.cli.conftest import COMMAND, Cli


def raising(error: BaseException) -> click.Command:
    @click.command
    def command() -> None:
        raise error

    return command


def run(command: click.Command, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["freezeflow"])
    return wrap.guarded(command)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FreezeflowError("no"), 1),
        (RecipeError("no"), 3),
        (ValidationFailed("no"), 4),
        (ModelRefused("no"), 5),
    ],
)
def test_each_kind_of_error_has_its_code(
    error: FreezeflowError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(raising(error), monkeypatch) == code
    assert capsys.readouterr() == ("", "error: no\n")


def test_where_and_hint_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(raising(ModelRefused("no", where="a > b", hint="do this\nor that")), monkeypatch)
    assert capsys.readouterr().err == "error: a > b: no\n  do this\n  or that\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_no_error(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error), monkeypatch) == 130
    assert capsys.readouterr().err.split() == ["interrupted"]


def test_a_bug_leaves_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(raising(ZeroDivisionError("oh\nno")), monkeypatch) == 1
    told = capsys.readouterr().err
    assert told.startswith("freezeflow: a bug: ZeroDivisionError: oh\n")
    (report,) = tmp_path.iterdir()
    assert str(report) in told
    text = report.read_text()
    assert "Traceback (most recent call last)" in text
    assert "ZeroDivisionError: oh" in text


def test_a_bug_whose_report_cannot_be_written_is_told_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert run(raising(ZeroDivisionError("oh")), monkeypatch) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_errors_as_json(cli: Cli) -> None:
    done = cli("plan", "nowhere.yaml", "--json")
    assert done.returncode == 3
    data = json.loads(done.stdout)
    assert data["format"] == "freezeflow.errors/1"
    assert set(data["errors"][0]) >= {"kind", "message", "where", "hint"}
    assert "nowhere.yaml" in done.stderr


def test_a_reader_that_goes_away_is_no_bug(folder: Path, environment: dict[str, str]) -> None:
    assert _run("freeze", "model", "-o", "x.pb", folder=folder, environment=environment) == 0
    command = f"set -o pipefail; '{COMMAND}' schema | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{\n"
    assert done.stderr == ""


def _run(*words: str, folder: Path, environment: dict[str, str]) -> int:
    command = [COMMAND, *words]
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, stdout=subprocess.DEVNULL
    ).returncode


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals(
    variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream:
        def __init__(self, is_terminal: bool) -> None:
            self.isatty = lambda: is_terminal

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wrap.colored(Stream(is_terminal=True)) is wanted
    assert wrap.colored(Stream(is_terminal=False)) is False
