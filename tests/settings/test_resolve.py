"""Settings: which source goes first, and what is said about mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from freezeflow.errors import UsageError
from freezeflow.report.errors import error_to_json
from freezeflow.report.settings import render_settings, settings_to_json
from freezeflow.settings.resolve import InvalidSettings, resolve, settings_for, unknown_variables
from freezeflow.settings.settings import SETTINGS, cores

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, a user without a file, and no variables."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    folder = tmp_path / "project" / "recipes"
    folder.mkdir(parents=True)
    (folder.parent / ".git").mkdir()
    return folder


def write_user(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "user" / "freezeflow" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_without_any_choice_the_defaults_hold(project: Path, tmp_path: Path) -> None:
    found = settings_for([project])
    assert (found.jobs, found.keep_going, found.remote.url) == (cores(), False, "")
    assert found.cache_dir == tmp_path / "caches" / "freezeflow"
    assert {each.origin for each in resolve([project]).values()} == {"default"}


def test_each_source_goes_before_the_next(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = write_user(tmp_path, "jobs = 2\nkeep_going = true\nmem_limit = '4GB'\n")
    file = project.parent / "freezeflow.toml"
    file.write_text("# ours\njobs = 3\nstep_timeout = '15m'\n")
    found = resolve([project])
    assert found["jobs"] == (3, f"{file}:2")
    assert found["keep_going"] == (True, f"{user}:2")
    assert settings_for([project]).step_timeout == 900.0
    assert settings_for([project]).mem_limit == 4_000_000_000

    monkeypatch.setenv("FREEZEFLOW_JOBS", "4")
    assert resolve([project])["jobs"] == (4, "FREEZEFLOW_JOBS")
    assert resolve([project], {"jobs": 5, "keep_going": None})["jobs"] == (5, "--jobs")
    assert settings_for([project], {"keep_going": False}).keep_going is False


def test_the_nearest_file_counts(project: Path) -> None:
    (project.parent / "freezeflow.toml").write_text("jobs = 3")
    near = project / "pyproject.toml"
    near.write_text('[project]\nname = "freezeflow-user"\n')  # without our table: looked past
    assert settings_for([project]).jobs == 3
    near.write_text("[tool.other]\nx = 1\n\n[tool.freezeflow]\njobs = 7\n")
    assert resolve([project])["jobs"] == (7, f"{near}:5")
    near.write_text("[tool]\nfreezeflow.jobs = 8\n")
    assert resolve([project])["jobs"] == (8, f"{near}:2")


def test_nothing_above_a_repository_counts(project: Path, tmp_path: Path) -> None:
    (tmp_path / "freezeflow.toml").write_text("jobs = 3")
    assert settings_for([project]).jobs == cores()


def test_paths_begin_where_they_are_written(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.parent / "freezeflow.toml").write_text('cache_dir = "build/cache"\nremote = "../team"')
    found = settings_for([project])
    assert found.cache_dir == project.parent / "build" / "cache"
    assert found.remote.url == str(tmp_path / "team")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREEZEFLOW_CACHE_DIR", "here")
    assert settings_for([project]).cache_dir == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FREEZEFLOW_CACHE_DIR", "~/there")
    assert settings_for([project]).cache_dir == tmp_path / "home" / "there"


def test_recipes_of_two_projects_do_not_run_together(project: Path, tmp_path: Path) -> None:
    (project / "freezeflow.toml").write_text("jobs = 3")
    other = tmp_path / "other"
    other.mkdir()
    assert settings_for([project, other]).jobs == 3
    (other / "freezeflow.toml").write_text("jobs = 4")
    with pytest.raises(UsageError, match="projects with settings of their own"):
        settings_for([project, other])


def test_every_mistake_with_its_line(project: Path) -> None:
    file = project / "freezeflow.toml"
    file.write_text(
        "jbos = 3\n"
        'blah = """\n'
        "jobs = 9\n"
        '"""\n'
        "\n"
        "mem_limit = 'lots'\n"
        "[remote]\n"
        "  url = 's3://team/cache'\n"
        "push = 'maybe'\n"
        "secret_access_key = 'AKIA'\n"
        "signing_key = 'x'\n"
    )
    with pytest.raises(InvalidSettings) as caught:
        resolve([project])
    found = [(p.mark.line, p.mark.column, p.message, p.hint) for p in caught.value.problems]
    secret = "a secret does not belong into a file"
    assert found == [
        (1, 1, "there is no setting 'jbos'", "Did you mean 'jobs'?"),
        (2, 1, "there is no setting 'blah'", "`freezeflow config` shows all settings."),
        (6, 1, "mem_limit is no size, as 500MB is", ""),
        (9, 1, "remote.push is neither true nor false", ""),
        (10, 1, secret, found[4][3]),
        (11, 1, secret, found[5][3]),
    ]
    assert "FREEZEFLOW_REMOTE_SIGNING_KEY" in found[5][3]
    assert "AKIA" not in str(error_to_json(caught.value))
    assert caught.value.exit_code == 2
    assert f"{file}:1:1" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("jobs = 0", "jobs is no whole number from 1"),
        ("jobs = true", "jobs is no whole number from 1"),
        ("jobs = 2.0", "jobs is no whole number from 1"),
        ("keep_going = 1", "keep_going is neither true nor false"),
        ("cache_dir = 5", "cache_dir is no path"),
        ("step_timeout = 0", "step_timeout is no length of time"),
        ("step_timeout = '3 weeks'", "step_timeout is no length of time"),
        ("mem_limit = -1", "mem_limit is no size"),
        ("remote = 'ftp://host/x'", "remote.url is no address"),
        ("remote = 'https://me:word@host/x'", "remote.url holds a user or a password"),
        ("remote = 'https://host/x?sig=word'", "remote.url holds a query"),
        ("remote = {trusted_keys = 'short'}", "remote.trusted_keys is no ed25519 key"),
        ("remote = {trusted_keys = [1]}", "remote.trusted_keys is no list"),
        ("remote = {ulr = 'x'}", "there is no setting 'remote.ulr'"),
        ("jobs = {a = 1}", "jobs is no whole number"),
    ],
)
def test_wrong_types(project: Path, line: str, message: str) -> None:
    (project / "freezeflow.toml").write_text(f"\n{line}\n")
    with pytest.raises(InvalidSettings) as caught:
        resolve([project])
    (problem,) = caught.value.problems
    assert problem.message.startswith(message)
    assert problem.mark.line == 2
    assert "word" not in problem.message.replace("password", "")


def test_a_file_that_is_not_toml(project: Path) -> None:
    file = project / "freezeflow.toml"
    file.write_text("jobs = 1\njobs 2\n")
    with pytest.raises(UsageError) as caught:
        resolve([project])
    assert caught.value.where.startswith(f"{file}:2")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="UTF-8"):
        resolve([project])
    file.unlink()
    file.mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        resolve([project])


def test_a_wrong_variable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEZEFLOW_JOBS", "many")
    with pytest.raises(UsageError, match="'many' is no whole number") as caught:
        resolve([project])
    assert caught.value.where == "FREEZEFLOW_JOBS"
    monkeypatch.delenv("FREEZEFLOW_JOBS")
    monkeypatch.setenv("FREEZEFLOW_REMOTE_SIGNING_KEY", "hush")
    with pytest.raises(UsageError) as caught:
        resolve([project])
    assert "hush" not in str(caught.value)


def test_secrets_are_never_shown(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEZEFLOW_REMOTE_SIGNING_KEY", KEY)
    monkeypatch.setenv("FREEZEFLOW_REMOTE_TOKEN", "hush")
    chosen = resolve([project])
    shown = render_settings(chosen) + json.dumps(settings_to_json(chosen))
    shown += repr(settings_for([project]))
    assert settings_for([project]).remote.signing_key == KEY
    assert KEY not in shown
    assert "hush" not in shown
    assert settings_to_json(chosen)["settings"]["remote.token"]["value"] == "set"


def test_a_variable_that_was_mistyped_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEZEFLOW_JOSB", "3")
    monkeypatch.setenv("FREEZEFLOW_WHATEVER_ELSE", "3")
    assert unknown_variables() == [("FREEZEFLOW_JOSB", "FREEZEFLOW_JOBS")]


def test_no_file_costs_nothing(project: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from freezeflow.settings.resolve import settings_for\n"
        "settings_for([Path(sys.argv[1])])\n"
        "print(sorted({'tomllib', 'tomli', 'difflib', 'yaml', 'cryptography'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
