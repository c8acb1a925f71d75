"""``freezeflow diff``."""

from __future__ import annotations

import json
import shutil

from freezeflow.graph.write import graph_def_pieces
from freezeflow.store.files import write_atomically
from freezeflow.values import DType
from tests.graphs import const, graph, node, placeholder


def found(done):
    return json.loads(done.stdout)


def write_graph(path, made):
    write_atomically(path, list(graph_def_pieces(made)))


def chain_of(count, *, weight=1.0):
    """A graph of so many nodes: additions of one constant each."""
    nodes = [placeholder("x", DType.FLOAT, (None,))]
    last = "x"
    for number in range((count - 1) // 2):
        nodes.append(const(f"c{number}", weight if number == 7 else float(number)))
        nodes.append(node(f"n{number}", "AddV2", last, f"c{number}", T=DType.FLOAT))
        last = f"n{number}"
    return graph(*nodes)


def test_a_model_and_what_it_was_frozen_to(cli, folder):
    assert cli("run", "small.yaml").returncode == 0
    done = cli("diff", "model", "build/small.pb")
    assert done.returncode == 1
    assert "functions  3 → 0" in done.stdout
    assert "- NoOp (NoOp)" in done.stdout
    assert "more (--all lists them)" in done.stdout
    assert len(cli("diff", "--all", "model", "build/small.pb").stdout) > len(done.stdout)


def test_results_of_recipes_and_steps(cli, folder):
    missing = cli("diff", "small.yaml", "model")
    assert missing.returncode == 2
    assert "the step is not cached" in missing.stderr
    assert "freezeflow run" in missing.stderr
    cli("run", "small.yaml")
    same = cli("diff", "small.yaml", "build/small.pb")
    assert (same.returncode, same.stderr) == (0, "")
    assert "no difference" in same.stdout
    steps = cli("diff", "small.yaml:load", "small.yaml:freeze", "--json")
    assert steps.returncode == 1
    (model,) = found(steps)["models"]
    assert model["before"]["functions"] == 2
    assert {"op", "attr value"} & {f["field"] for c in model["changed"] for f in c["fields"]}
    unknown = cli("diff", "small.yaml:no", "small.yaml")
    assert unknown.returncode == 2
    assert "There are: load, freeze, strip, export." in unknown.stderr


def test_a_changed_weight_is_told_with_the_largest_difference(cli, folder):
    write_graph(folder / "a.pb", chain_of(30))
    write_graph(folder / "b.pb", chain_of(30, weight=7.5 + 1))
    text = cli("diff", "a.pb", "b.pb")
    assert text.returncode == 1
    assert "~ c7 float32[]: 1 of 1 element differ, largest difference 7.5" in text.stdout
    data = found(cli("diff", "a.pb", "b.pb", "--json"))
    assert data["format"] == "freezeflow.diff/1"
    assert (data["same"], data["breaking"]) == (False, False)
    (model,) = data["models"]
    assert [c["largest"] for c in model["constants"]] == [7.5]
    assert cli("diff", "--breaking", "a.pb", "b.pb").returncode == 0


def test_breaking_changes_are_for_ci(cli, folder):
    cli("run", "small.yaml")
    shutil.copytree(folder / "build", folder / "before")
    manifest = folder / "build" / "small.manifest.json"
    manifest.write_text(manifest.read_text().replace('"probabilities": {', '"scores": {'))
    done = cli("diff", "--breaking", "before/small.pb", "build/small.pb")
    assert done.returncode == 1
    assert "breaking  serving_default output probabilities: removed" in done.stdout
    assert "compatible  serving_default output scores: added" in done.stdout


def test_refusals(cli, folder):
    assert cli("diff", "nowhere.pb", "model").returncode == 2
    (folder / "bad.pb").write_bytes(b"no graph")
    assert cli("diff", "bad.pb", "model").returncode == 5
    cli("run", "small.yaml")
    (folder / "build" / "small.manifest.json").write_text("[]")
    broken = cli("diff", "build/small.pb", "model")
    assert broken.returncode == 5
    assert "this is no freezeflow.manifest/1" in broken.stderr


def test_ten_thousand_nodes(cli, folder, imported):
    write_graph(folder / "a.pb", chain_of(10_001))
    write_graph(folder / "b.pb", chain_of(10_001, weight=0.5))
    (model,) = found(cli("diff", "a.pb", "b.pb", "--json"))["models"]
    assert model["before"]["nodes"] == 10_001
    assert len(model["constants"]) == 1
    # NumPy only where elements are compared, TensorFlow never.
    assert not imported("diff", "a.pb", "a.pb") & {"tensorflow", "keras", "numpy", "networkx"}
