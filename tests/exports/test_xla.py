import hashlib

import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.exports import stablehlo, xla_aot
from freezeflow.runtimes import compiled
from tests.exports.conftest import XLA_AOT_CHECKED
from tests.exports.running import Branches


@pytest.mark.parametrize(
    ("run", "branch"),
    [
        ("ran", "stablehlo-open"),
        pytest.param("ran_slowly", "xla_aot-open", marks=pytest.mark.slow),
    ],
)
def test_shapes_have_to_be_known(request, run, branch):
    error = request.getfixturevalue(run).error(branch)
    assert isinstance(error, ModelRefused)
    assert "takes known shapes only, and input 'image' is [?, 8, 8, 1]" in error.message
    assert "`batch: N`" in error.hint


def test_the_artifact_names_the_version_that_can_read_it(ran):
    ran.facts("stablehlo")
    assert b"StableHLO_v1.0.0" in (ran.folder / "h" / "m.mlirbc").read_bytes()[:64]


@pytest.mark.slow
def test_object_files_and_header_are_the_same_again(ran_slowly):
    one, other = (ran_slowly.published(branch) for branch in ("xla_aot", "xla_aot-again"))
    names = {path.name for path in one}
    assert {"model.h", "model.o", "freezeflow.manifest.json"} <= names
    assert not any(name.endswith(".inc") for name in names)
    varying = {*ran_slowly.facts("xla_aot")["varies"], "freezeflow.manifest.json"}
    digests = [
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if p.name not in varying}
        for paths in (one, other)
    ]
    assert digests[0] == digests[1]
    assert {"model.h", "model.o", "model_constants.o"} <= digests[0].keys()


@pytest.mark.parametrize(
    ("problems", "params", "name"),
    [
        (stablehlo.problems, stablehlo.Params(stablehlo="1"), "stablehlo"),
        (xla_aot.problems, xla_aot.Params(cpp_class="a-b", check=False), "cpp_class"),
    ],
)
def test_mistakes_in_the_parameters(problems, params, name):
    assert [found for found, _ in problems(params)] == [name]


def test_without_a_compiler_it_is_exported_unchecked_only(monkeypatch):
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    ((name, message),) = xla_aot.problems(xla_aot.Params())
    assert name == "check"
    assert "`check: false`" in message
    assert xla_aot.problems(xla_aot.Params(check=False)) == []


@pytest.mark.slow
@pytest.mark.skipif(compiled.compiler() is None, reason="there is no C++ compiler")
def test_a_compiled_program_answers_as_the_original_does(tmp_path):
    check = Branches(tmp_path, XLA_AOT_CHECKED, jobs=1).facts("xla_aot")["check"]
    assert check["calls"] == 4
    assert check["outputs"]["probabilities"]["max_abs"] < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(compiled.compiler() is None, reason="there is no C++ compiler")
def test_a_model_without_inputs_is_called_as_often_as_the_original(tmp_path):
    class Table(tf.Module):
        @tf.function(input_signature=[])
        def serve(self):
            return {"row": tf.constant([1.5, 2.5]) * 2.0}

    made = Table()
    tf.saved_model.save(made, str(tmp_path / "m"), signatures=made.serve)
    export = {"to": "aot/m", "format": "xla_aot"}
    check = Branches(tmp_path, {"it": export}, model=tmp_path / "m", jobs=1).facts("it")["check"]
    assert check["outputs"]["row"]["max_abs"] == 0.0
