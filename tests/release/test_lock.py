"""Locks: what they say, whether they hold, and that git can merge them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml

from freezeflow.engine.events import StepEnded
from freezeflow.engine.results import StepResult
from freezeflow.errors import UsageError
from freezeflow.release.lock import Lock, LockedModel, read_lock
from freezeflow.release.lock_check import LockBroken, LockGuard
from freezeflow.release.lock_file import lock_text, read_lock_file
from freezeflow.values import Digest


@pytest.fixture
def lock(cli, folder):
    done = cli("lock", "small.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "small.yaml.lock: 1 model; locked small\n"
    return folder / "small.yaml.lock"


def edit(path, before, after):
    text = path.read_text()
    assert text.count(before) >= 1
    path.write_text(text.replace(before, after, 1))


# ---------------------------------------------------------------- what it says


def test_it_says_all_that_the_result_depends_on(lock, folder):
    data = yaml.safe_load(lock.read_text())
    assert data["format"] == "freezeflow.lock/1"
    (model,) = data["models"].values()
    assert set(model) == {"built_with", "freezeflow", "recipe", "source", "steps"}
    assert set(model["source"]["files"]) == {
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    }
    assert list(model["steps"]) == ["export", "freeze", "load", "strip"]
    assert model["steps"]["freeze"]["params"]["written"] == "error"
    assert model["steps"]["export"]["needs"] == ["strip"]
    file = model["steps"]["export"]["files"]["build/small.pb"]
    assert file["bytes"] == (folder / "build" / "small.pb").stat().st_size
    assert {"python", "machine", "numpy", "protobuf", "tensorflow"} <= set(model["built_with"])
    assert str(folder) not in lock.read_text()


def test_the_same_bytes_from_a_cold_cache_and_a_second_time(cli, folder, lock, tmp_path):
    before = lock.read_bytes()
    assert cli("lock", "small.yaml").stdout == "small.yaml.lock: 1 model, as before\n"
    assert lock.read_bytes() == before
    lock.unlink()
    assert cli("lock", "small.yaml", FREEZEFLOW_CACHE_DIR=str(tmp_path / "new")).returncode == 0
    assert lock.read_bytes() == before


def test_a_failed_step_writes_nothing(cli, folder):
    edit(folder / "small.yaml", "- freeze", "- freeze: {bind: {nothing: 1}}")
    done = cli("lock", "small.yaml")
    assert done.returncode == 2
    assert "there is no input 'nothing'" in done.stderr
    assert not (folder / "small.yaml.lock").exists()


@pytest.mark.parametrize(
    "text",
    ["no", "010", "1e3", "1e-05", "0x1f", "null", "~", "", "12:30", "a: b", "é\n", "-", "🙂"],
)
def test_texts_stay_texts(tmp_path, text):
    data = {text or "empty": [text, {"below": text}], "number": 1e-05, "yes": True}
    path = tmp_path / "lock"
    path.write_text(lock_text(data), encoding="utf-8")
    assert read_lock_file(path).data == data


# ---------------------------------------------------------------- whether it holds


def test_it_holds(cli, folder, lock):
    done = cli("lock", "--check", "small.yaml")
    assert (done.returncode, done.stdout) == (0, "small.yaml.lock holds: 1 model\n")
    assert cli("run", "--locked", "small.yaml").returncode == 0
    # On a fresh machine there is neither a cache nor a result.
    shutil.rmtree(folder / "build")
    shutil.rmtree(folder / "cache")
    done = cli("lock", "--check", "small.yaml")
    assert done.returncode == 0
    assert "2 locked files are not there, so not compared" in done.stdout
    assert cli("run", "--locked", "small.yaml").returncode == 0
    assert (folder / "build" / "small.pb").is_file()


def test_what_was_only_recorded_may_differ(cli, folder, lock):
    text = lock.read_text()
    lock.write_text(re.sub(r"python: .*", "python: 3.9.9", text))
    done = cli("lock", "--check", "small.yaml")
    assert done.returncode == 0
    assert "built with python 3.9.9, now 3." in done.stdout
    # A new lock of the same result leaves it as it was.
    assert cli("lock", "small.yaml").stdout.endswith("as before\n")


CHANGES = {
    "parameter written of freeze: locked error, now drop": (
        "recipe",
        "- freeze",
        "- freeze: {written: drop}",
    ),
    "another version of freezeflow": ("lock", "freezeflow: 0", "freezeflow: 9"),
    "the model's file saved_model.pb is another one": (
        "lock",
        "saved_model.pb: blake3:",
        "saved_model.pb: blake3:0",
    ),
    "the stage of strip has another version": (
        "lock",
        "stage: strip\n        stage_version: ",
        "stage: strip\n        stage_version: 9",
    ),
    "parameter to of export: locked build/small.pb, now build/other.pb": (
        "recipe",
        "build/small.pb",
        "build/other.pb",
    ),
    "step more is another one": (
        "recipe",
        "  - strip",
        "  - strip\n  - {id: more, export: more.pb}",
    ),
    "the recipe has no such model any more": ("lock", "  small:", "  other:"),
    "another part of the model is asked for (signatures)": (
        "recipe",
        "  saved_model: model",
        "  saved_model: model\n  signatures: [serve]",
    ),
}


@pytest.mark.parametrize("why", CHANGES)
def test_which_line_does_not_hold_and_why(cli, folder, lock, why):
    where, before, after = CHANGES[why]
    edit(lock if where == "lock" else folder / "small.yaml", before, after)
    done = cli("lock", "--check", "small.yaml")
    assert done.returncode == 4, done.stderr
    assert why in done.stderr
    assert re.search(r"^small\.yaml\.lock:\d+:\d+: ", done.stderr)
    assert "write the lock anew: freezeflow lock" in done.stderr


def test_a_locked_run_refuses_before_anything_runs(cli, folder, lock):
    edit(folder / "small.yaml", "- freeze", "- freeze: {written: drop}")
    shutil.rmtree(folder / "build")
    done = cli("run", "--locked", "small.yaml")
    assert done.returncode == 4
    assert "parameter written of freeze: locked error, now drop" in done.stderr
    assert not (folder / "build").exists()


def test_the_line_is_the_right_one(cli, folder, lock):
    edit(folder / "small.yaml", "- freeze", "- freeze: {written: drop}")
    data = json.loads(cli("lock", "--check", "--json", "small.yaml").stdout)
    assert data["format"] == "freezeflow.lock-check/1"
    assert data["holds"] is False
    (found,) = data["mismatches"]
    assert found["field"] == ["steps", "freeze", "params", "written"]
    assert (found["locked"], found["now"]) == ("error", "drop")
    assert lock.read_text().splitlines()[found["line"] - 1].strip() == "written: error"


def test_a_changed_weight_is_noticed(cli, folder, lock):
    shard = folder / "model" / "variables" / "variables.data-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    done = cli("run", "--locked", "small.yaml")
    assert done.returncode == 4
    assert "variables/variables.data-00000-of-00001 is another one" in done.stderr


def test_a_published_file_that_was_changed(cli, folder, lock):
    published = folder / "build" / "small.pb"
    published.write_bytes(published.read_bytes()[:-1] + b"\0")
    done = cli("lock", "--check", "small.yaml")
    assert done.returncode == 4
    assert "the file build/small.pb is not the one that was locked" in done.stderr
    # A run makes it anew.
    assert cli("run", "--locked", "small.yaml").returncode == 0
    assert cli("lock", "--check", "small.yaml").returncode == 0


def test_a_result_that_differs_is_taken_away_again(cli, folder, lock):
    sha256 = re.search(r"small.pb:\n *bytes: \d+\n *sha256: (\w+)", lock.read_text())[1]
    edit(lock, sha256, "f" * 64)
    done = cli("run", "--locked", "--force", "small.yaml")
    assert done.returncode == 4
    assert f"export gives another build/small.pb: locked {'f' * 24}..., now " in done.stderr
    assert not (folder / "build" / "small.pb").exists()


def test_a_model_that_differs_stops_the_run(lock, folder):
    locked = read_lock(lock)
    from freezeflow.api import load_plans

    (plan,) = load_plans(folder / "small.yaml", cache_dir=folder / "cache")
    guard = LockGuard({plan.recipe: locked}, [plan])
    step = locked.models["small"].steps["strip"]
    from freezeflow.engine.forecast import forecast
    from freezeflow.store.store import Store

    store = Store.open(folder / "cache")
    ref = next(found.ref for found in forecast(plan, store) if found.ref.step == "strip")
    same = StepResult(ref=ref, stage="strip", status="ran", key=step.key, model=step.output.model)
    guard(StepEnded(result=same))
    other = StepResult(ref=ref, stage="strip", status="ran", key=step.key, model=Digest("1" * 64))
    with pytest.raises(LockBroken) as caught:
        guard(StepEnded(result=other))
    (found,) = caught.value.mismatches
    assert found.field == ("steps", "strip", "model")
    assert lock.read_text().splitlines()[found.line - 1].strip() == f"model: {step.output.model}"


# ---------------------------------------------------------------- damaged, absent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "format: freezeflow.lock/9\nmodels: {}\n",
        "format: freezeflow.lock/1\nmodels: {a: {}}\n",
        "<<<<<<< ours\na: 1\n=======\na: 2\n>>>>>>> theirs\n",
        "a: &x [1]\nb: *x\n",
        "a: 1\na: 2\n",
        "a: [" * 100,
        "a: " + "[" * 50 + "]" * 50,
        "\x00",
    ],
)
def test_damaged_locks_are_refused(tmp_path, text):
    path = tmp_path / "r.yaml.lock"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_lock(path)
    assert str(path) in caught.value.where
    assert "freezeflow lock" in caught.value.hint


def test_without_a_lock(cli):
    for words in (("lock", "--check"), ("run", "--locked")):
        done = cli(*words, "small.yaml")
        assert done.returncode == 2
        assert "the recipe has no lock" in done.stderr


# ---------------------------------------------------------------- several models


def many(lock, names):
    (block,) = read_lock(lock).models.values()
    return Lock(path=lock, models=dict.fromkeys(names, block))


def test_one_model_is_one_block(lock, tmp_path):
    made = many(lock, ["b", "a", "c"])
    made.write()
    before = lock.read_text()
    changed = {
        **made.models,
        "b": LockedModel.from_json({**made.models["b"].to_json(), "recipe": "x"}),
    }
    Lock(path=lock, models=changed).write()
    pairs = zip(before.splitlines(), lock.read_text().splitlines(), strict=True)
    different = [number for number, (old, new) in enumerate(pairs, 1) if old != new]
    assert different == [read_lock(lock).line_of("b", ("recipe",))]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_merges_what_two_people_locked(lock, tmp_path):
    base = many(lock, ["a", "b", "c", "d"])

    def written(name, *models):
        blocks = {
            m: LockedModel.from_json({**base.models["a"].to_json(), "recipe": f"new {m}"})
            for m in models
        }
        path = tmp_path / name
        Lock(path=path, models={**base.models, **blocks}).write()
        return path

    ours, old, theirs = written("ours", "a"), written("old"), written("theirs", "c", "zz")
    subprocess.run(["git", "merge-file", ours, old, theirs], check=True)
    assert ours.read_bytes() == written("both", "a", "c", "zz").read_bytes()


# ---------------------------------------------------------------- what it costs


def test_checking_needs_no_tensorflow(imported, lock):
    found = imported("lock", "--check", "small.yaml") | imported("run", "--locked", "small.yaml")
    assert not found & {"tensorflow", "keras", "numpy", "networkx", "jsonschema", "rich"}


MANY = """\
version: 1
models: {include: models/*}
stages: [load, freeze, strip, export: "build/{model}.pb"]
"""


@pytest.mark.slow
def test_locking_one_model_anew_touches_only_its_block(cli, folder):
    for name in ("a", "b", "c"):
        shutil.copytree(folder / "model", folder / "models" / name)
    (folder / "many.yaml").write_text(MANY)
    done = cli("lock", "many.yaml")
    assert done.stdout == "many.yaml.lock: 3 models; locked a, b, c\n"
    before = yaml.safe_load((folder / "many.yaml.lock").read_text())["models"]
    for name in ("a", "b"):
        graph = folder / "models" / name / "saved_model.pb"
        # An unknown field at the end: another file, the same model.
        graph.write_bytes(graph.read_bytes() + b"\xfa\x3f\x01x")
    check = cli("lock", "--check", "many.yaml")
    assert check.returncode == 4
    assert "a: the model's file saved_model.pb is another one" in check.stderr
    assert cli("lock", "many.yaml", "--model", "b").stdout.endswith("3 models; locked b\n")
    after = yaml.safe_load((folder / "many.yaml.lock").read_text())["models"]
    assert [name for name in before if before[name] != after[name]] == ["b"]
    assert cli("lock", "--check", "many.yaml", "--model", "b").returncode == 0
    assert cli("lock", "--check", "many.yaml", "--model", "a").returncode == 4
    assert cli("lock", "many.yaml", "--model", "nobody").returncode == 2
    cli("lock", "many.yaml")
    assert cli("run", "--locked", "--jobs", "2", "many.yaml").returncode == 0
    assert cli("rebuild", "--check", "many.yaml").returncode == 0
    released = cli("release", "many.yaml", "--to", "r", "--json")
    assert released.returncode == 0, released.stderr
    assert cli("verify", "r").returncode == 0
    shutil.rmtree(folder / "models" / "c")
    gone = cli("lock", "--check", "many.yaml")
    assert "c: the recipe has no such model any more" in gone.stderr
    assert cli("lock", "many.yaml").stdout.endswith("2 models; dropped c\n")
