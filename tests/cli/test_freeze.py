from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from freezeflow.graph.graph import Graph
from freezeflow.graph.read import GraphReader
from freezeflow.messages import message_class
from tests.cli.conftest import Cli

WARM_FREE = {"jsonschema", "networkx", "numpy", "rich", "tensorflow", "yaml", "sqlite3"}


def graph_in(path: Path) -> Graph:
    message = message_class("GraphDef").FromString(path.read_bytes())
    return GraphReader(message).graph()


def test_freezes_into_a_graph_with_its_manifest(cli: Cli, folder: Path) -> None:
    done = cli("freeze", "model", "-o", "out/digits.pb")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("out/digits.pb: 83 nodes, ")
    assert sorted(p.name for p in (folder / "out").iterdir()) == [
        "digits.manifest.json",
        "digits.pb",
    ]
    manifest = json.loads((folder / "out/digits.manifest.json").read_text())
    ends = manifest["signatures"]["serving_default"]
    assert ends["inputs"]["image"]["tensor"] == "image:0"
    assert {"image", "probabilities"} <= set(graph_in(folder / "out/digits.pb").nodes)


def test_without_tensorflow(imported: Callable[..., set[str]]) -> None:
    found = imported("freeze", "model", "-o", "digits.pb")
    assert "freezeflow.graph.freeze" in found
    assert not found & WARM_FREE


def test_json_names_files_and_figures(cli: Cli, folder: Path) -> None:
    done = cli("freeze", "model", "-o", "digits.pb", "--json")
    data = json.loads(done.stdout)
    assert data["format"] == "freezeflow.freeze/1"
    assert set(data) == {"format", "files", "stages", "warnings"}
    assert [Path(file["path"]).name for file in data["files"]] == [
        "digits.pb",
        "digits.manifest.json",
    ]
    assert data["files"][0]["bytes"] == (folder / "digits.pb").stat().st_size
    stages = {stage["stage"]: stage["facts"] for stage in data["stages"]}
    assert list(stages) == ["load", "freeze", "strip", "export"]
    assert stages["freeze"]["variables_frozen"] == 17


def test_the_printed_recipe_gives_the_same_graph(cli: Cli, folder: Path) -> None:
    words = ("model", "--signature", "serve", "--tags", "serve")
    text = cli("freeze", *words, "-o", "one.pb", "--recipe").stdout
    assert not (folder / "one.pb").exists()
    assert cli("freeze", *words, "-o", "two.pb").returncode == 0
    (folder / "printed.yaml").write_text(text)
    assert cli("run", "printed.yaml").returncode == 0
    assert (folder / "one.pb").read_bytes() == (folder / "two.pb").read_bytes()


def test_external_weights(cli: Cli, folder: Path) -> None:
    words = ("freeze", "model", "--weights", "external", "-o", "two.pb")
    assert cli(*words).returncode == 0
    text = cli(*words, "--recipe").stdout
    # This model's weights are small.
    assert not (folder / "two.weights").exists()
    (folder / "printed.yaml").write_text(
        text.replace("weights: external", "weights: external, external_from: 2000")
    )
    assert cli("run", "printed.yaml").returncode == 0
    assert len(list((folder / "two.weights").iterdir())) >= 1


def test_the_printed_recipe_may_write_outside_its_folder(cli: Cli, folder: Path) -> None:
    text = cli("freeze", "model", "-o", "../outside.pb", "--recipe").stdout
    assert "allow_outside: true" in text
    (folder / "printed.yaml").write_text(text)
    assert cli("check", "printed.yaml").returncode == 0


def test_a_name_that_is_none_is_refused_and_leaves_nothing(cli: Cli, folder: Path) -> None:
    done = cli("freeze", "model", "-o", "out/x.pb", "--signature", "servign")
    assert done.returncode == 5
    assert "no signature 'servign'" in done.stderr
    assert "serve, serving_default" in done.stderr
    assert not (folder / "out").exists()


def test_the_empty_tag_set_is_asked_for(cli: Cli) -> None:
    done = cli("freeze", "model", "-o", "x.pb", "--tags", "")
    assert done.returncode == 5
    assert "tags (none)" in done.stderr


def test_a_damaged_model_is_refused_and_leaves_nothing(cli: Cli, folder: Path) -> None:
    data = folder / "model/variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    done = cli("freeze", "model", "-o", "out/x.pb")
    assert done.returncode == 5
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (folder / "out").exists()


def test_a_wrong_byte_is_found_while_the_weights_are_copied(cli: Cli, folder: Path) -> None:
    data = folder / "model/variables/variables.data-00000-of-00001"
    changed = bytearray(data.read_bytes())
    changed[len(changed) // 2] ^= 1
    data.write_bytes(changed)
    done = cli("freeze", "model", "-o", "out/x.pb")
    assert done.returncode == 5
    assert "do not have the checksum" in done.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "-o", "x.pb"), "there is no such model"),
        (("model",), "Say where to write"),
        (("model", "-o", "x.onnx"), "ends in .pb or .pbtxt"),
        (("model", "-o", "x.pb", "--bind", "training"), "is not NAME=VALUE"),
        (("model", "-o", "x.pb", "--bind", "training=false"), "training"),
    ],
)
def test_wrong_usage(cli: Cli, folder: Path, words: tuple[str, ...], message: str) -> None:
    done = cli("freeze", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(folder.glob("x.*"))


def test_text_for_people(cli: Cli, folder: Path) -> None:
    assert cli("freeze", "model", "-o", "digits.pbtxt").returncode == 0
    assert "node {" in (folder / "digits.pbtxt").read_text()
    assert (folder / "digits.pbtxt.manifest.json").is_file()


def test_a_frozen_graph_freezes_again(cli: Cli, folder: Path) -> None:
    assert cli("freeze", "model", "-o", "one.pb").returncode == 0
    done = cli(
        "freeze", "one.pb", "-o", "two.pb", "--inputs", "image:0", "--outputs", "probabilities"
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "one.pb").read_bytes() == (folder / "two.pb").read_bytes()


def test_a_value_that_does_not_suit_its_input_is_refused(cli: Cli, folder: Path) -> None:
    done = cli("freeze", "model", "-o", "x.pb", "--bind", "image=0.5")
    assert done.returncode == 5
    assert "only a scalar can be bound" in done.stderr
    assert not list(folder.glob("x.*"))


def test_the_printed_recipe_says_all_that_was_asked(cli: Cli, folder: Path) -> None:
    done = cli(
        *("freeze", "model", "--recipe", "--checkpoint", "model/variables/variables"),
        *("--averages", "--tables", "inline", "--bind", "training=false", "--written", "drop"),
    )
    assert done.returncode == 0
    assert "  checkpoint: model/variables/variables\n  averages: true\n" in done.stdout
    assert "freeze: {bind: {training: false}, written: drop, tables: inline}" in done.stdout


def test_weights_of_a_named_checkpoint(cli: Cli, folder: Path) -> None:
    """The model's own checkpoint, named beside it, gives the same bytes."""
    cli("freeze", "model", "-o", "own.pb")
    done = cli("freeze", "model", "-o", "named.pb", "--checkpoint", "model/variables/variables")
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "own.pb").read_bytes() == (folder / "named.pb").read_bytes()
    refused = cli("freeze", "model", "-o", "none.pb", "--checkpoint", "model/variables/nothing")
    assert refused.returncode == 5
    assert "no checkpoint here" in refused.stderr
    shutil.rmtree(folder / "model" / "variables")
    refused = cli("freeze", "model", "-o", "none.pb")
    assert refused.returncode == 5
    assert "no checkpoint here\n  Copy all files of the model." in refused.stderr
    assert not (folder / "none.pb").exists()
