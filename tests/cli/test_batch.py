"""Many models by one recipe, and many recipes by one command."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Cli

ZOO = """\
version: 1
models: zoo/*
stages:
  - load
  - freeze
  - strip
  - export: "build/{model}.pb"
"""

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def zoo(folder: Path) -> Path:
    """Four models, and a recipe for them."""
    for number, name in enumerate(NAMES):
        shutil.copytree(folder / "model", folder / "zoo" / name)
        # Another model: a field that nobody knows differs.
        with (folder / "zoo" / name / "saved_model.pb").open("ab") as file:
            file.write(bytes([0xFA, 0x7F, 1, ord("a") + number]))
    (folder / "zoo.yaml").write_text(ZOO, encoding="utf-8")
    return folder


def test_check_plan_run(cli: Cli, zoo: Path) -> None:
    assert "zoo.yaml: 4 models, 16 steps, no mistakes" in cli("check", "zoo.yaml").stdout
    assert "16 of 16 steps would run." in cli("plan", "zoo.yaml").stdout
    done = cli("run", "zoo.yaml")
    assert done.returncode == 0
    assert sorted(path.name for path in (zoo / "build").glob("*.pb")) == [f"{n}.pb" for n in NAMES]
    assert "Nothing to do: 16 steps are cached." in cli("plan", "zoo.yaml").stdout


def test_select(cli: Cli, zoo: Path) -> None:
    done = cli("run", "zoo.yaml", "--select", "b*", "--select", "cat")
    assert done.returncode == 0
    assert done.stderr.startswith("2 of 4 models are selected\n")
    assert sorted(path.name for path in (zoo / "build").glob("*.pb")) == ["bee.pb", "cat.pb"]
    done = cli("run", "zoo.yaml", "--select", "cow")
    assert done.returncode == 2
    assert "nothing is called 'cow'" in done.stderr
    assert "There are: ant, bee, cat, dog." in done.stderr
    assert cli("show", "zoo.yaml", "freeze", "--select", "bee").returncode == 0
    done = cli("show", "zoo.yaml", "freeze")
    assert done.returncode == 2
    assert "zoo.yaml has 4 models, and this takes one" in done.stderr


def test_models_with_the_same_weights_share_them(cli: Cli, zoo: Path) -> None:
    """Ten fine-tuned copies of a backbone take the room of one, but for what differs."""
    assert cli("run", "zoo.yaml", "--select", "ant").returncode == 0
    one = json.loads(cli("cache", "info", "--json").stdout)["adopted_bytes"]
    assert cli("run", "zoo.yaml").returncode == 0
    assert json.loads(cli("cache", "info", "--json").stdout)["adopted_bytes"] == one > 0


# ---------------------------------------------------------------- nothing to do


@pytest.fixture
def settled(cli: Cli, zoo: Path) -> Cli:
    """The command, after a run that has left nothing to do, and put that on record."""
    # What was touched just now could be changed again without that this shows.
    time.sleep(0.1)
    assert "16 ran" in cli("run", "zoo.yaml").stdout
    assert records(zoo)
    return cli


def records(zoo: Path) -> list[Path]:
    return list((zoo / "cache" / "plans").glob("unchanged-*"))


def test_nothing_to_do_looks_up_no_step(
    settled: Cli, zoo: Path, imported: Callable[..., set[str]]
) -> None:
    """Not even the index's rows are needed."""
    index = sqlite3.connect(zoo / "cache" / "index.db")
    index.execute("DELETE FROM actions")
    index.commit()
    index.close()
    done = settled("run", "zoo.yaml")
    assert "Nothing to do: all 16 steps are cached" in done.stdout
    loaded = imported("run", "zoo.yaml")
    assert not {"yaml", "numpy", "networkx", "rich", "freezeflow.engine.run"} & loaded


def test_a_model_that_changes_during_the_run_is_looked_at_again(cli: Cli, zoo: Path) -> None:
    """What was read is not what is there, so nothing is put on record."""
    events = zoo / "events.ndjson"
    watch = f"until grep -qs step_ended {events}; do sleep 0.01; done; touch zoo/*/saved_model.pb"
    with subprocess.Popen(["sh", "-c", watch], cwd=zoo):
        assert cli("run", "zoo.yaml", "--events", str(events)).returncode == 0
    assert not records(zoo)
    assert "Nothing to do" in cli("run", "zoo.yaml").stdout


def test_an_output_that_changes_before_it_is_on_record_is_seen(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even within the tick of the clock, with the same length and times."""
    monkeypatch.setenv("FREEZEFLOW_CACHE_DIR", str(zoo / "cache"))
    from freezeflow import api

    time.sleep(0.1)
    began_ns = time.time_ns()
    plans = api.load_batch([zoo / "zoo.yaml"]).plans
    record = api.up_to_date_record([zoo / "zoo.yaml"])
    assert record is not None
    result = api.run(plans)
    output = zoo / "build" / "cat.pb"
    looked = output.stat()
    data = bytearray(output.read_bytes())
    data[-1] ^= 1
    output.write_bytes(data)
    os.utime(output, ns=(looked.st_atime_ns, looked.st_mtime_ns))
    api.keep_up_to_date(record, plans, result, began_ns=began_ns)
    assert not records(zoo)
    assert record.steps() is None


def _touch_output(zoo: Path) -> None:
    (zoo / "build" / "cat.pb").write_bytes(b"other")


def _remove_output(zoo: Path) -> None:
    (zoo / "build" / "cat.manifest.json").unlink()


def _change_weights(zoo: Path) -> None:
    (data,) = (zoo / "zoo" / "cat" / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes())


def _add_a_file(zoo: Path) -> None:
    (zoo / "zoo" / "cat" / "assets").mkdir()


def _add_a_model(zoo: Path) -> None:
    shutil.copytree(zoo / "zoo" / "cat", zoo / "zoo" / "eel")


def _change_the_recipe(zoo: Path) -> None:
    (zoo / "zoo.yaml").write_text(ZOO.replace("- strip", "- strip: {identities: true}"))


def _damage_a_blob(zoo: Path) -> None:
    blob = next(path for path in (zoo / "cache" / "blobs").rglob("*") if path.is_file())
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")


CHANGES = {
    "output": (_touch_output, "1 ran, 15 cached"),
    "output gone": (_remove_output, "1 ran, 15 cached"),
    "touched": (_change_weights, "Nothing to do"),
    "new file": (_add_a_file, "Nothing to do"),
    "new model": (_add_a_model, "1 ran, 19 cached"),
    "recipe": (_change_the_recipe, "8 ran, 8 cached"),
    "blob": (_damage_a_blob, "ran, "),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_whatever_changes_is_seen(
    settled: Cli, zoo: Path, change: Callable[[Path], None], expected: str
) -> None:
    before = records(zoo)[0].read_bytes()
    change(zoo)
    done = settled("run", "zoo.yaml")
    assert expected in done.stdout
    time.sleep(0.1)
    assert "Nothing to do" in settled("run", "zoo.yaml").stdout
    assert any(path.read_bytes() != before for path in records(zoo))


def test_what_gc_takes_is_seen(settled: Cli, zoo: Path) -> None:
    from freezeflow.store.store import Store

    store = Store.open(zoo / "cache")
    keys = list(store.actions.last_used())
    store.actions.forget(keys)
    store.close()
    assert "Done: 16 ran" in settled("run", "zoo.yaml").stdout


def test_a_damaged_record_does_not_count(settled: Cli, zoo: Path) -> None:
    for text in (b"", b"{}", b"[1]\n", b'{"origin": 1}\nx', os.urandom(200)):
        for path in records(zoo):
            path.chmod(0o644)
            path.write_bytes(text)
        assert "Nothing to do: all 16 steps" in settled("run", "zoo.yaml").stdout


def test_json_is_whole_when_there_is_nothing_to_do(settled: Cli) -> None:
    data = json.loads(settled("run", "zoo.yaml", "--json").stdout)
    assert data["nothing_to_do"] is True
    assert [plan["name"] for plan in data["plans"]] == list(NAMES)


# ---------------------------------------------------------------- folders


def test_folders_of_recipes(cli: Cli, zoo: Path) -> None:
    recipes = zoo / "recipes"
    (recipes / "deep").mkdir(parents=True)
    (recipes / "a.yaml").write_text(ZOO.replace("zoo/*", "../zoo/a*"))
    (recipes / "deep/b.yml").write_text(ZOO.replace("zoo/*", "../../zoo/b*"))
    (recipes / "base.yaml").write_text("version: 1\nstages: [load]\n")
    (recipes / "compose.yaml").write_text("services: {}\n")
    (recipes / ".hidden.yaml").write_text("version: 1\nmodel: {}\n")
    done = cli("check", "recipes")
    assert done.stdout.splitlines() == [
        "recipes/a.yaml: 4 steps, no mistakes",
        "recipes/deep/b.yml: 4 steps, no mistakes",
    ]
    assert "8 of 8 steps would run." in cli("plan", "recipes").stdout
    assert "Done: 8 ran" in cli("run", "recipes").stdout
    (recipes / "c.yaml").write_text("version: 1\nmodels: nowhere/*\nstages: [lod]\n")
    done = cli("check", "recipes", "--json")
    assert done.returncode == 3
    rows = json.loads(done.stdout)["recipes"]
    assert [row["ok"] for row in rows] == [True, False, True]
    done = cli("check", "zoo")
    assert done.returncode == 2
    assert "this folder has no recipe" in done.stderr


# ---------------------------------------------------------------- which models


def test_what_failed_last_time(cli: Cli, zoo: Path) -> None:
    whole = (zoo / "zoo/cat/saved_model.pb").read_bytes()
    (zoo / "zoo/cat/saved_model.pb").write_bytes(b"\x0a\x05nope")
    done = cli("run", "zoo.yaml", "--keep-going")
    assert done.returncode == 5
    assert "Failed: 12 ran, 1 failed, 3 skipped" in done.stdout
    lines = done.stderr.splitlines()
    assert any(line.startswith("[") and "cat  FAILED load: " in line for line in lines)
    assert sum("  done  " in line for line in lines) == 3
    assert "4 of 4 steps would run." in cli("plan", "zoo.yaml", "--failed").stdout
    (zoo / "zoo/cat/saved_model.pb").write_bytes(whole)
    assert "Done: 4 ran" in cli("run", "zoo.yaml", "--failed").stdout
    done = cli("run", "zoo.yaml", "--failed")
    assert (done.returncode, done.stderr) == (0, "0 of 4 models are selected\n")
    assert done.stdout == "Nothing to do: no model is selected.\n"
    done = cli("plan", "zoo.yaml", "--failed")
    assert (done.returncode, done.stderr) == (0, "0 of 4 models are selected\n")
    assert done.stdout == "Nothing to do: no model is selected.\n"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_what_differs_from_a_revision(cli: Cli, zoo: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *words], cwd=zoo, check=True, capture_output=True)

    (zoo / ".gitignore").write_text("cache\nbuild\n")
    git("init", "-b", "main")
    git("add", ".")
    git("commit", "-m", "one")

    def chosen(revision: str = "HEAD") -> list[str]:
        done = cli("plan", "zoo.yaml", "--changed-since", revision, "--json")
        return [plan["name"] for plan in json.loads(done.stdout)["plans"]]

    assert chosen() == []
    _change_weights(zoo)
    assert chosen() == []
    with (zoo / "zoo/bee/saved_model.pb").open("ab") as file:
        file.write(bytes([0xFA, 0x7F, 1, ord("x")]))
    assert chosen() == ["bee"]
    _add_a_model(zoo)
    assert chosen() == ["bee", "eel"]
    git("add", ".")
    git("commit", "-m", "two")
    assert chosen("HEAD~1") == ["bee", "eel"]
    assert chosen() == []
    done = cli("run", "zoo.yaml", "--changed-since", "HEAD~1")
    assert done.stderr.startswith("2 of 5 models are selected\n")
    assert "Done: 8 ran" in done.stdout
    with (zoo / "zoo.yaml").open("a") as file:
        file.write("# changed\n")
    assert len(chosen()) == 5
    done = cli("run", "zoo.yaml", "--changed-since", "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    shutil.rmtree(zoo / ".git")
    done = cli("run", "zoo.yaml", "--changed-since", "HEAD")
    assert done.returncode == 2
    assert "not a git repository" in done.stderr


def test_shards_and_their_results(cli: Cli, zoo: Path) -> None:
    (zoo / "zoo.yaml").write_text(ZOO.replace("zoo/*", "[zoo/dog, zoo/*]"))
    names = []
    for number in (1, 2, 3):
        done = cli("run", "zoo.yaml", "--shard", f"{number}/3", "--json")
        assert done.returncode == 0
        (zoo / f"{number}.json").write_text(done.stdout)
        names.append([plan["name"] for plan in json.loads(done.stdout)["plans"]])
    assert sorted(name for shard in names for name in shard) == list(NAMES)
    assert sorted(map(len, names)) == [1, 1, 2]
    (zoo / "zoo.yaml").write_text(ZOO.replace("zoo/*", "[zoo/cat, zoo/*]"))
    again = json.loads(cli("run", "zoo.yaml", "--shard", "2/3", "--json").stdout)
    assert sorted(plan["name"] for plan in again["plans"]) == sorted(names[1])

    done = cli("report", "merge", "1.json", "3.json", "2.json", "-o", "all.json")
    assert done.returncode == 0
    assert "Done: 4 models; steps: 16 ran;" in done.stdout
    merged = json.loads((zoo / "all.json").read_text())
    assert [plan["name"] for plan in merged["plans"]] == list(NAMES)
    assert (merged["format"], merged["ok"], merged["shard"]) == ("freezeflow.run/2", True, None)

    done = cli("report", "merge", "1.json", "3.json")
    assert done.returncode == 1
    assert "of 3 shards 2 is missing" in done.stderr
    (zoo / "2.json").write_text("{}")
    done = cli("report", "merge", "2.json")
    assert done.returncode == 2
    assert "2.json: no result of a run: it has no format" in done.stderr
    for wrong in ("0/3", "4/3", "x", "1"):
        assert cli("run", "zoo.yaml", "--shard", wrong).returncode == 2


def test_a_failure_in_one_shard_is_one_of_all(cli: Cli, zoo: Path) -> None:
    (zoo / "zoo/cat/saved_model.pb").write_bytes(b"\x0a\x05nope")
    for number in (1, 2):
        done = cli("run", "zoo.yaml", "--shard", f"{number}/2", "--json", "--keep-going")
        (zoo / f"{number}.json").write_text(done.stdout)
    done = cli("report", "merge", "1.json", "2.json")
    assert done.returncode == 1
    assert "cat: load" in done.stdout
    assert "Failed: 4 models; steps: 12 ran, 3 skipped, 1 failed" in done.stdout.replace(
        "12 ran, 1 failed, 3 skipped", "12 ran, 3 skipped, 1 failed"
    )


# ---------------------------------------------------------------- results for programs


def test_events_and_junit(cli: Cli, zoo: Path) -> None:
    (zoo / "zoo/cat/saved_model.pb").write_bytes(b"\x0a\x05nope")
    done = cli("run", "zoo.yaml", "--keep-going", "--events", "e.ndjson", "--junit", "j.xml")
    assert done.returncode == 5
    events = [json.loads(line) for line in (zoo / "e.ndjson").read_text().splitlines()]
    assert events[0]["format"] == "freezeflow.events/1"
    assert (events[0]["event"], events[0]["steps"]) == ("run_started", 16)
    assert (events[-1]["event"], events[-1]["ok"]) == ("run_ended", False)
    ended = [event for event in events if event["event"] == "step_ended"]
    assert len(ended) == 16
    assert {event["plan"] for event in ended} == set(NAMES)
    (failed,) = [event for event in ended if event["status"] == "failed"]
    assert failed["error"]["kind"] == "ModelRefused"
    assert all(earlier["time"] <= later["time"] for earlier, later in pairwise(events))

    root = ElementTree.parse(zoo / "j.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == [f"zoo.yaml: {name}" for name in NAMES]
    bad = suites["zoo.yaml: cat"]
    assert (bad.get("tests"), bad.get("failures"), bad.get("skipped")) == ("4", "1", "3")
    failure = bad.find("testcase/failure")
    assert failure is not None
    assert failure.get("type") == "ModelRefused"
    assert suites["zoo.yaml: ant"].find("testcase/failure") is None


def test_a_file_that_cannot_be_written_stops_before_anything_runs(cli: Cli, zoo: Path) -> None:
    done = cli("run", "zoo.yaml", "--events", "nowhere/e.ndjson")
    assert done.returncode == 1
    assert "nowhere/e.ndjson: cannot be written" in done.stderr
    assert not (zoo / "build").exists()
