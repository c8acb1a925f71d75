from importlib.metadata import EntryPoint, version
from types import SimpleNamespace

import pytest

from freezeflow.errors import UsageError
from freezeflow.exports import registry
from freezeflow.plan import make_plan
from freezeflow.spec.problems import InvalidRecipe
from freezeflow.spec.recipe import load_recipes
from freezeflow.stages.export import STAGE, params_of
from freezeflow.stages.stage import StageInput
from freezeflow.values import ModelSource
from tests.exports.models import dense


def test_every_format_answers_to_its_name():
    for name in registry.FORMATS:
        found = registry.format_named(name)
        assert found.name == name
        assert found.summary.endswith(".")
    assert registry.format_names() == tuple(sorted(registry.FORMATS))


def test_an_unknown_format_is_told_with_a_suggestion():
    with pytest.raises(UsageError, match="no export format 'frozen-graph'") as caught:
        registry.format_named("frozen-graph")
    assert "Did you mean 'frozen_graph'?" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        registry.format_named("zzz")
    assert caught.value.hint == f"There are: {', '.join(sorted(registry.FORMATS))}."


@pytest.fixture
def plugins(monkeypatch):
    def installed(*names):
        found = [
            EntryPoint(name, f"tests.exports.plugin:{name.upper()}", registry.ENTRY_POINTS)
            for name in names
        ]
        ours = registry.ENTRY_POINTS
        monkeypatch.setattr(
            "importlib.metadata.entry_points", lambda group: found if group == ours else []
        )
        forget()

    def forget():
        registry.plugin_formats.cache_clear()
        registry.format_named.cache_clear()
        params_of.cache_clear()

    yield installed
    monkeypatch.undo()
    forget()


def test_a_plugin_brings_a_format(plugins):
    plugins("mine")
    assert registry.format_names() == tuple(sorted({*registry.FORMATS, "mine"}))
    assert registry.format_named("mine").summary == "A list of nodes."


@pytest.mark.parametrize("name", ["gone", "other", "number"])
def test_an_entry_point_that_names_no_format_of_its_name(plugins, name):
    plugins(name)
    with pytest.raises(UsageError, match=name):
        registry.format_named(name)


@pytest.mark.parametrize("names", [("mine", "mine"), ("saved_model",)])
def test_a_clash_of_names_is_an_error(plugins, names):
    plugins(*names)
    with pytest.raises(UsageError, match=f"'{names[0]}' is brought by both"):
        registry.format_names()


def recipe(folder, export):
    (folder / "m").mkdir(exist_ok=True)
    (folder / "m" / "saved_model.pb").touch()
    path = folder / "r.yaml"
    path.write_text(
        f"version: 1\nmodel: {{saved_model: m}}\nstages: [load, freeze, export: {export}]\n"
    )
    return path


def test_a_plugins_parameters_stand_beside_the_common_ones(plugins, tmp_path):
    plugins("mine")
    plan = make_plan(
        load_recipes(recipe(tmp_path, "{to: x.txt, format: mine, words: 3}")).recipes[0]
    )
    step = plan.steps[-1]
    assert step.params == {"to": "x.txt", "format": "mine", "upper": False, "words": 3}
    assert step.tools == {"format mine": "7", "numpy": version("numpy")}
    assert not step.in_tensorflow
    other = make_plan(load_recipes(recipe(tmp_path, "x.pb")).recipes[0]).steps[-1]
    assert other.params == {
        "to": "x.pb",
        "format": "frozen_graph",
        "devices": False,
        "drop_defaults": False,
        "target": None,
        "weights": "inline",
        "external_from": 65536,
        "check": False,
    }
    assert other.tools == {"format frozen_graph": "1"}


def told(folder, export):
    with pytest.raises(InvalidRecipe) as caught:
        load_recipes(recipe(folder, export))
    return str(caught.value)


def test_mistakes_in_a_formats_parameters(plugins, tmp_path):
    plugins("mine", "lacking")
    wrong = told(tmp_path, "{to: x.txt, format: mine, devices: true}")
    assert "r.yaml:3:58: unknown parameter of export 'devices'" in wrong
    assert "It belongs to format frozen_graph and saved_model; this is mine." in wrong
    assert "words must be at least 1, not 0" in told(
        tmp_path, "{to: x.txt, format: mine, words: 0}"
    )
    assert "a mine ends in .txt" in told(tmp_path, "{to: x.pb, format: mine}")
    missing = told(tmp_path, "{to: x, format: lacking}")
    assert (
        "lacking needs no-such-package, which is not installed: pip install 'freezeflow[melted]'"
        in (missing)
    )
    assert "format must be one of" in told(tmp_path, "{to: x, format: min, words: 1}")


def test_a_plugins_format_runs(plugins, tmp_path):
    plugins("mine")
    place = SimpleNamespace(base=tmp_path, recipe_digest=None)
    params = params_of("mine")(to="x.txt", format="mine", upper=True)
    source = ModelSource(kind="saved_model", path=tmp_path)
    outcome = STAGE.run(StageInput(model=dense(tmp_path / "in"), source=source), params, place)
    assert (tmp_path / "x.txt").read_text().split() == ["W", "X"]
    assert outcome.facts["words"] == 2
