"""Building again from nothing: the same bytes, or what is different, with Nix's exit codes."""

from __future__ import annotations

import json
import os

import pytest

from freezeflow.api import releases
from freezeflow.cli.rebuild import command
from freezeflow.errors import UsageError
from freezeflow.release.rebuild import EXIT_CODES
from freezeflow.report.rebuild import rebuild_to_json, render_rebuild
from freezeflow.stages import registry
from tests.release.unsteady import VARIABLE


@pytest.fixture
def unsteady(folder, tmp_path, monkeypatch):
    """A recipe with a stage that obeys an environment variable, and its lock."""
    plugin = tmp_path / "plugin" / "freezeflow_test_unsteady-1.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: test-unsteady\nVersion: 1\n")
    entry = "[freezeflow.stages]\ntest-unsteady = tests.release.unsteady:STAGE\n"
    (plugin / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(plugin.parent)
    monkeypatch.setenv("FREEZEFLOW_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv(VARIABLE, "one")
    _forget()
    recipe = folder / "small.yaml"
    recipe.write_text(recipe.read_text().replace("- strip", "- strip\n  - test-unsteady"))
    assert releases.lock(recipe).lock is not None
    yield recipe
    _forget()


def _forget():
    registry.stage_modules.cache_clear()
    registry.stage_named.cache_clear()


def test_the_same_bytes(unsteady, folder):
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (folder / "build").iterdir()}
    found = releases.rebuild(unsteady)
    assert (found.outcome, found.compared_with, found.files) == ("same", "lock", 2)
    assert {step.status for step in found.result.steps} == {"ran"}
    # Nothing was touched.
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (folder / "build").iterdir()}
    assert after == before


def test_without_a_lock_published_files_are_compared(unsteady, folder, monkeypatch):
    (folder / "small.yaml.lock").unlink()
    assert releases.rebuild(unsteady).compared_with == "files"
    monkeypatch.setenv(VARIABLE, "two")
    found = releases.rebuild(unsteady)
    assert found.outcome == "mismatch"
    assert [difference.file for difference in found.differences] == ["build/small.pb"]
    for path in (folder / "build").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="neither a lock nor a published file"):
        releases.rebuild(unsteady)


def test_another_result_is_shown_as_graphs(unsteady, monkeypatch):
    monkeypatch.setenv(VARIABLE, "two")
    found = releases.rebuild(unsteady)
    assert (found.outcome, EXIT_CODES[found.outcome]) == ("mismatch", 102)
    assert [(d.step, d.file) for d in found.differences] == [
        ("test-unsteady", ""),
        ("export", ""),
        ("export", "build/small.manifest.json"),
        ("export", "build/small.pb"),
    ]
    (part,) = found.parts
    assert part.name == "small/test-unsteady"
    (constant,) = part.diff.constants
    assert constant.value.differing == 1
    text = render_rebuild(found)
    assert "in the same way each time" in text
    assert "batchnorm/add/y float32[]: 1 of 1 element differ, largest difference" in text
    data = rebuild_to_json(found)
    assert (data["outcome"], data["exit_code"]) == ("mismatch", 102)
    assert data["models"][0]["constants"][0]["differing"] == 1


def test_what_differs_each_time(unsteady, monkeypatch):
    monkeypatch.setenv(VARIABLE, "random")
    found = releases.rebuild(unsteady)
    assert (found.outcome, EXIT_CODES[found.outcome]) == ("not_deterministic", 104)
    assert found.differences[0].step == "test-unsteady"
    assert len(found.parts[0].diff.constants) == 1
    assert "two builds from nothing differ" in render_rebuild(found)


def test_a_build_that_fails(unsteady, monkeypatch):
    monkeypatch.setenv(VARIABLE, "fail")
    found = releases.rebuild(unsteady)
    assert (found.outcome, EXIT_CODES[found.outcome]) == ("failed", 100)
    assert [step.error.message for step in found.result.failures] == ["this build is broken"]


def test_a_build_that_takes_too_long(unsteady, monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, "slow")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    found = releases.rebuild(unsteady, seconds=0.3)
    assert (found.outcome, EXIT_CODES[found.outcome]) == ("timeout", 101)
    assert list((tmp_path / "tmp").glob("freezeflow-rebuild-*")) == []


def test_the_command(cli, folder):
    assert cli("rebuild", "small.yaml").returncode == 2
    assert cli("lock", "small.yaml").returncode == 0
    done = cli("rebuild", "--check", "small.yaml")
    assert done.returncode == 0
    assert done.stdout == "The same bytes: 2 files built from nothing, compared with the lock.\n"
    lock = folder / "small.yaml.lock"
    lock.write_text(lock.read_text().replace("sha256: ", "sha256: f"))
    done = cli("rebuild", "--check", "--json", "small.yaml")
    assert done.returncode == 102
    assert json.loads(done.stdout)["format"] == "freezeflow.rebuild/1"
    recipe = folder / "small.yaml"
    recipe.write_text(recipe.read_text().replace("- freeze", "- freeze: {bind: {nothing: 1}}"))
    done = cli("rebuild", "--check", "small.yaml")
    assert done.returncode == 100
    assert "there is no input 'nothing'" in done.stderr


def test_an_output_outside_of_the_project_is_not_touched(cli, folder):
    recipe = folder / "small.yaml"
    outside = folder.parent / "outside.pb"
    text = recipe.read_text().replace("version: 1", "version: 1\nallow_outside: true")
    recipe.write_text(text.replace("build/small.pb", str(outside)))
    assert cli("lock", "small.yaml").returncode == 0
    before = os.stat(outside)
    done = cli("rebuild", "--check", "small.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert os.stat(outside) == before


def test_the_exit_codes_are_those_that_the_help_names():
    help_text = command.help or ""
    assert all(str(code) in help_text for code in EXIT_CODES.values())
