from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from freezeflow.cli.run import exit_code
from freezeflow.engine.results import StepRef, StepResult
from freezeflow.errors import FreezeflowError, ModelRefused, StageFailed, ValidationFailed
from tests.cli.conftest import RECIPE, Cli

WARM_FREE = {
    "google.protobuf",
    "jsonschema",
    "multiprocessing",
    "networkx",
    "numpy",
    "rich",
    "tensorflow",
    "yaml",
}


def test_the_second_run_does_nothing_and_says_so(cli: Cli, folder: Path) -> None:
    first = cli("run", "small.yaml")
    assert first.returncode == 0, first.stderr
    graph = (folder / "build/small.pb").read_bytes()
    lines = [line.split()[:3] for line in first.stderr.splitlines()]
    assert lines == [["small:", stage, "done"] for stage in ("load", "freeze", "strip", "export")]
    assert "Done: 4 ran" in first.stdout
    assert "build/small.pb" in first.stdout

    second = cli("run", "small.yaml")
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.startswith("Nothing to do: all 4 steps are cached")
    assert "build/small.pb" in second.stdout
    assert (folder / "build/small.pb").read_bytes() == graph


def test_the_warm_path_imports_nothing_heavy(cli: Cli, imported: Callable[..., set[str]]) -> None:
    assert cli("run", "small.yaml").returncode == 0
    found = imported("run", "small.yaml")
    assert "freezeflow.engine.run" in found
    assert not found & WARM_FREE


def test_json_tells_the_same(cli: Cli) -> None:
    first = json.loads(cli("run", "small.yaml", "--json").stdout)
    assert first["format"] == "freezeflow.run/2"
    assert (first["ok"], first["nothing_to_do"]) == (True, False)
    (recipe,) = first["plans"]
    assert set(recipe) == {"recipe", "name", "steps"}
    keys = {"id", "stage", "status", "key", "model", "files", "facts", "log", "error"}
    assert all(set(step) == keys for step in recipe["steps"])
    assert [step["status"] for step in recipe["steps"]] == ["ran"] * 4
    (graph, manifest) = recipe["steps"][-1]["files"]
    assert Path(graph["path"]).stat().st_size == graph["bytes"]
    assert manifest["path"].endswith("build/small.manifest.json")

    second = json.loads(cli("run", "small.yaml", "--json").stdout)
    assert (second["ok"], second["nothing_to_do"]) == (True, True)
    assert [step["key"] for step in second["plans"][0]["steps"]] == [
        step["key"] for step in recipe["steps"]
    ]


def test_what_is_cached_is_told_in_one_line(cli: Cli, folder: Path) -> None:
    assert cli("run", "small.yaml").returncode == 0
    (folder / "build/small.pb").unlink()
    done = cli("run", "small.yaml")
    warning, cached, export = done.stderr.splitlines()
    assert warning.startswith("small: export: warning: ")
    assert "build/small.pb was changed or removed" in warning
    assert cached == "3 steps are cached"
    assert export.startswith("small: export ")
    assert "Done: 1 ran, 3 cached" in done.stdout
    assert (folder / "build/small.pb").is_file()


def test_variables_are_set(cli: Cli, folder: Path) -> None:
    assert cli("run", "small.yaml", "--set", "to=build/other.pb").returncode == 0
    assert (folder / "build/other.pb").is_file()
    assert not (folder / "build/small.pb").exists()


def test_only_some_steps(cli: Cli, folder: Path) -> None:
    done = cli("run", "small.yaml", "--only", "freeze")
    assert "Done: 2 ran" in done.stdout
    assert not (folder / "build").exists()
    unknown = cli("run", "small.yaml", "--only", "thaw")
    assert unknown.returncode == 2
    assert "no step is called 'thaw'" in unknown.stderr


def test_several_recipes_at_once(cli: Cli, folder: Path) -> None:
    other = RECIPE.replace("name: small", "name: other").replace("build/small", "build/other")
    (folder / "other.yaml").write_text(other)
    done = cli("run", "small.yaml", "other.yaml", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    # The steps up to the export are the same.
    assert "5 ran, 3 cached" in done.stdout
    assert (folder / "build/small.pb").read_bytes() == (folder / "build/other.pb").read_bytes()


def test_a_typo_is_shown_with_its_line(cli: Cli, folder: Path) -> None:
    (folder / "small.yaml").write_text(RECIPE.replace("- freeze", "- freze"))
    done = cli("run", "small.yaml")
    assert done.returncode == 3
    assert "small.yaml:8:5" in done.stderr
    assert "'freeze'" in done.stderr
    assert done.stdout == ""


def test_the_mistakes_of_all_recipes_are_told(cli: Cli, folder: Path) -> None:
    (folder / "one.yaml").write_text(RECIPE.replace("- freeze", "- freze"))
    (folder / "two.yaml").write_text(RECIPE.replace("- strip", "- stripp"))
    done = cli("run", "one.yaml", "small.yaml", "two.yaml", "--json")
    assert done.returncode == 3
    assert "one.yaml:8:5" in done.stderr
    assert "two.yaml:9:5" in done.stderr
    assert len(json.loads(done.stdout)["errors"]) == 2
    assert not (folder / "build").exists()


def test_a_recipe_that_is_named_twice_runs_once(cli: Cli) -> None:
    assert "Done: 4 ran" in cli("run", "small.yaml", "./small.yaml").stdout


def test_two_recipes_may_not_write_one_file(cli: Cli, folder: Path) -> None:
    (folder / "other.yaml").write_text(RECIPE)
    for command in ("plan", "run"):
        done = cli(command, "small.yaml", "other.yaml")
        assert (done.returncode, done.stdout) == (2, "")
        assert "small.yaml and other.yaml both write" in done.stderr
    assert not (folder / "build").exists()


def test_a_refused_model_has_its_own_code(cli: Cli, folder: Path) -> None:
    (folder / "model/saved_model.pb").write_bytes(b"\x0a\x05nope")
    done = cli("run", "small.yaml")
    assert done.returncode == 5
    assert "FAILED" in done.stderr
    assert "Failed: 1 failed, 3 skipped" in done.stdout
    assert not (folder / "build").exists()
    data = json.loads(cli("run", "small.yaml", "--json").stdout)
    assert data["ok"] is False
    (load, *rest) = data["plans"][0]["steps"]
    assert load["status"] == "failed"
    assert load["error"]["kind"] == "ModelRefused"
    assert {step["status"] for step in rest} == {"skipped"}


def test_exit_code_of_several_failures() -> None:
    def failed(error: FreezeflowError) -> StepResult:
        ref = StepRef(Path("a.yaml"), "a", "step")
        return StepResult(ref=ref, stage="load", status="failed", error=error)

    refused, wrong = failed(ModelRefused("no")), failed(ValidationFailed("other"))
    assert exit_code([]) == 0
    assert exit_code([failed(StageFailed("broken"))]) == 1
    assert exit_code([wrong, wrong]) == 4
    assert exit_code([refused]) == 5
    assert exit_code([refused, wrong]) == 1


def test_a_change_of_one_export_runs_no_other(cli: Cli, folder: Path) -> None:
    """Only what its own file depends on is in an export's key: the model, and the stages before it."""
    two = RECIPE + '  - export: "build/second.pb"\n'

    def statuses(recipe: str) -> dict[str, str]:
        (folder / "small.yaml").write_text(recipe, encoding="utf-8")
        done = cli("run", "small.yaml", "--json")
        assert done.returncode == 0, done.stderr
        (plan,) = json.loads(done.stdout)["plans"]
        return {step["id"]: step["status"] for step in plan["steps"]}

    steps = ["load", "freeze", "strip", "export", "export-2"]
    assert statuses(two) == dict.fromkeys(steps, "ran")
    cached = dict.fromkeys(steps, "cached")
    assert statuses(two.replace("second", "renamed")) == {**cached, "export-2": "ran"}
    first = two.replace("small.pb", "small.pbtxt")
    assert statuses(first) == {**cached, "export": "ran"}
    # Another name, or one more export, is nothing that the files say.
    assert statuses(first.replace("name: small", "name: other")) == cached
    third = first + '  - export: "build/third.pb"\n'
    assert statuses(third) == {**cached, "export-3": "ran"}
    # What stands in a stage before them, is.
    changed = statuses(third.replace("- strip", "- strip: [Print]"))
    assert {changed[step] for step in ("export", "export-2", "export-3")} == {"ran"}
