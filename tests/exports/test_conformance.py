"""What holds for every registered format, and for every one that has a runtime."""

import dataclasses
import hashlib
import json

import pytest

from freezeflow.errors import ValidationFailed
from freezeflow.exports.check import Check
from freezeflow.exports.registry import FORMATS, format_named
from freezeflow.params import fields_of, params_to_json, schema_of
from freezeflow.stages.export import STAGE, demands, params_of, problems
from tests.exports.running import EXTRAS

CONVERTED = ("onnx", "tflite", "openvino", "tfjs", "stablehlo")


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_declared_whole(name):
    found = format_named(name)
    assert found.name == name
    assert found.summary.endswith(".")
    assert found.version >= 1
    params = params_of(name)
    assert {"to", "format"} <= set(fields_of(params))
    assert schema_of(params)["required"] == ["to"]
    assert all(field.metadata["doc"].endswith(".") for field, _ in fields_of(params).values())
    needed = {*found.tools, *(tool for each in found.runtimes for tool in each.tools)}
    needed -= {"tensorflow"}
    assert needed <= EXTRAS[found.extra]


@pytest.mark.parametrize("name", FORMATS)
def test_what_it_takes_depends_on_the_check(name, tfjs):
    if name == "tfjs" and not tfjs:
        pytest.skip("TensorFlow.js is not here")
    to = f"x{(*format_named(name).suffixes, '')[0]}"
    params = params_of(name)(to=to, format=name)
    assert problems(params) == []
    found = demands(params)
    assert found.versions[f"format {name}"] == str(format_named(name).version)
    assert found.confines_itself == found.in_tensorflow
    if "check" in params_to_json(params):
        unchecked = demands(dataclasses.replace(params, check=False))
        runtime = format_named(name).runtimes[0]
        assert set(found.tools) - set(unchecked.tools) <= set(runtime.tools)
        mistakes = STAGE.problems(dataclasses.replace(params, check=Check(sizes=())))
        assert ("check", "at least one size is needed, none below 0") in mistakes


def test_a_missing_extra_is_one_line_with_the_command(monkeypatch, tfjs):
    monkeypatch.setattr("freezeflow.exports.format.version_of", lambda package: None)
    for name in FORMATS:
        found = format_named(name)
        params = params_of(name)(to=f"x{(*found.suffixes, '')[0]}", format=name)
        told = problems(params)
        if found.needed_tools(params):
            ((key, message),) = told
            assert key == "format"
            assert found.extra == "" or f"pip install 'freezeflow[{found.extra}]'" in message
        elif tfjs or name != "tfjs":
            assert told == []


@pytest.mark.parametrize("name", CONVERTED)
def test_it_answers_as_the_original_does(ran, name):
    check = ran.facts(name)["check"]
    assert check["format"] == "freezeflow.runtime-verdict/1"
    assert check["calls"] > check["refused"]
    assert all(output["within"] for output in check["outputs"].values())
    assert {"tensorflow", *format_named(name).tools} <= set(ran.plan_step(name).tools)


@pytest.mark.parametrize("name", CONVERTED)
def test_two_processes_write_the_same_bytes(ran, name):
    one, other = (
        {path.name.replace("u.", "m."): digest_of(path) for path in ran.published(branch)}
        for branch in (name, f"{name}-unchecked")
    )
    manifests = {key for key in one if "manifest" in key}
    assert one.keys() == other.keys()
    assert all(one[key] == other[key] for key in one.keys() - manifests)


@pytest.mark.parametrize("name", CONVERTED)
def test_the_manifest_names_every_file(ran, name):
    *files, manifest = ran.published(name)
    data = json.loads(manifest.read_text())
    assert data["export"]["format"] == name
    root = manifest.parent
    assert {key: entry["sha256"] for key, entry in data["files"].items()} == {
        path.relative_to(root).as_posix(): digest_of(path) for path in files
    }
    assert str(ran.folder) not in manifest.read_text()


@pytest.mark.parametrize("name", CONVERTED)
def test_a_failed_check_publishes_nothing(ran, name):
    error = ran.error(f"{name}-strict")
    assert isinstance(error, ValidationFailed)
    assert "is not what the original gives: max_abs" in error.message
    assert not ran.target(f"{name}-strict").exists()


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_each_branch_ran_once_from_one_frozen_graph(ran):
    """A diamond: its one freeze feeds every export."""
    assert [name for name in ran.steps if name in ("load", "freeze", "strip")] == [
        "load",
        "freeze",
        "strip",
    ]
    assert {ran.plan_step(name).needs for name in ran.steps if name in CONVERTED} == {("strip",)}
    keys = [step.key for step in ran.steps.values()]
    assert len(set(keys)) == len(keys)
