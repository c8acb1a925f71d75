"""The commands that only look: check, plan, show, graph, stages, schema."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from freezeflow.stages.registry import BUILTIN
from tests.cli.conftest import RECIPE, Cli


def test_check_counts_or_names_every_mistake(cli: Cli, folder: Path) -> None:
    good = cli("check", "small.yaml")
    assert (good.returncode, good.stdout) == (0, "small.yaml: 4 steps, no mistakes\n")
    (folder / "bad.yaml").write_text(
        RECIPE.replace("- strip", "- stripp").replace("model\n", "m\n")
    )
    done = cli("check", "small.yaml", "bad.yaml")
    assert done.returncode == 3
    assert done.stdout == good.stdout
    assert "bad.yaml:9:5" in done.stderr
    assert "2 mistakes in bad.yaml" in done.stderr

    data = json.loads(cli("check", "small.yaml", "bad.yaml", "--json").stdout)
    assert data["format"] == "freezeflow.check/1"
    assert [row["ok"] for row in data["recipes"]] == [True, False]
    assert len(data["recipes"][1]["error"]["problems"]) == 2


def test_plan_says_what_would_run_and_why(cli: Cli, folder: Path) -> None:
    before = cli("plan", "small.yaml")
    assert before.returncode == 0
    assert "4 of 4 steps would run." in before.stdout
    assert cli("run", "small.yaml").returncode == 0
    assert "Nothing to do: 4 steps are cached." in cli("plan", "small.yaml").stdout

    (folder / "small.yaml").write_text(RECIPE.replace("- strip", "- strip: {identities: true}"))
    words = [line.split() for line in cli("plan", "small.yaml").stdout.splitlines()]
    assert ["strip", "runs", "its", "key", "changed"] in words
    assert ["params.identities:", "false", "→", "true"] in words
    # Its manifest names the recipe, which is another one now.
    assert ["export", "runs", "it", "needs", "strip,", "which", "runs"] in [w[:7] for w in words]
    assert "2 of 4 steps would run." in cli("plan", "small.yaml").stdout

    data = json.loads(cli("plan", "small.yaml", "--json").stdout)
    assert data["format"] == "freezeflow.forecast/2"
    steps = {step["id"]: step for step in data["plans"][0]["steps"]}
    assert steps["freeze"]["state"] == "cached"
    (change,) = steps["strip"]["changes"]
    assert change == {"field": "params.identities", "before": False, "after": True}


def test_show_prints_a_cached_graph(cli: Cli, folder: Path) -> None:
    missing = cli("show", "small.yaml", "freeze")
    assert missing.returncode == 1
    assert "not cached" in missing.stderr
    assert cli("run", "small.yaml").returncode == 0
    done = cli("show", "small.yaml", "freeze")
    assert done.returncode == 0
    assert done.stdout.startswith("signature serving_default\n  input image = image : float32")
    unknown = cli("show", "small.yaml", "thaw")
    assert unknown.returncode == 2
    assert "load, freeze, strip, export" in unknown.stderr


def test_show_writes_a_graph_for_viewers(cli: Cli, folder: Path) -> None:
    assert cli("run", "small.yaml").returncode == 0
    assert cli("show", "small.yaml", "strip", "-o", "strip.pb").returncode == 0
    words = ("--inputs", "image", "--outputs", "probabilities")
    assert cli("freeze", "strip.pb", "-o", "again.pb", *words).returncode == 0
    assert (folder / "again.pb").read_bytes() == (folder / "build/small.pb").read_bytes()


def test_show_prints_a_log(cli: Cli) -> None:
    assert cli("run", "small.yaml").returncode == 0
    done = cli("show", "small.yaml", "freeze", "--log")
    assert (done.returncode, done.stdout) == (0, "")


DIAMOND = RECIPE.replace('  - export: "${to}"\n', "") + (
    "  - {id: left, needs: [strip], export: build/left.pb}\n"
    "  - {id: right, needs: [strip], export: build/right.pb}\n"
)


def test_graph_draws_any_dag(cli: Cli, folder: Path) -> None:
    (folder / "diamond.yaml").write_text(DIAMOND)
    text = cli("graph", "diamond.yaml").stdout
    assert [line.split() for line in text.splitlines()][-2:] == [
        ["left", "export", "needs", "strip"],
        ["right", "export", "needs", "strip"],
    ]
    mermaid = cli("graph", "diamond.yaml", "--format", "mermaid").stdout
    assert mermaid.startswith("flowchart TD\n")
    assert mermaid.count("s2 --> ") == 2
    dot = cli("graph", "diamond.yaml", "--format", "dot").stdout
    assert '"strip" -> "left";' in dot
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=dot, text=True, check=True, capture_output=True)


def test_stages_are_listed_with_their_parameters(cli: Cli) -> None:
    assert [line.split()[0] for line in cli("stages").stdout.splitlines()] == list(BUILTIN)
    one = cli("stages", "validate").stdout
    assert 'level  exact | served, default "exact"' in one
    assert "`- validate: VALUE` is short for" in one
    data = json.loads(cli("stages", "--json").stdout)
    assert data["format"] == "freezeflow.stages/1"
    assert [stage["name"] for stage in data["stages"]] == list(BUILTIN)
    assert "Did you mean 'fold'?" in cli("stages", "fodl").stderr


@pytest.mark.parametrize("stage", BUILTIN)
def test_every_stage_can_be_shown(cli: Cli, stage: str) -> None:
    done = cli("stages", stage)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{stage}: ")


def test_the_schema_is_json(cli: Cli) -> None:
    data = json.loads(cli("schema").stdout)
    assert data["$schema"].startswith("https://json-schema.org/")
