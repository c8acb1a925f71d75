from importlib.metadata import EntryPoint

import pytest

from freezeflow.errors import UsageError
from freezeflow.exports import registry


def test_every_format_answers_to_its_name():
    for name in registry.FORMATS:
        found = registry.format_named(name)
        assert found.name == name
        assert found.summary.endswith(".")
    assert registry.format_names() == ("frozen_graph", "saved_model")


def test_an_unknown_format_is_told_with_a_suggestion():
    with pytest.raises(UsageError, match="no export format 'frozen-graph'") as caught:
        registry.format_named("frozen-graph")
    assert "Did you mean 'frozen_graph'?" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        registry.format_named("zzz")
    assert caught.value.hint == "There are: frozen_graph, saved_model."


def plugins(monkeypatch, *names):
    found = [
        EntryPoint(name, "freezeflow.exports.frozen_graph:FORMAT", registry.ENTRY_POINTS)
        for name in names
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found)


def test_a_plugin_brings_a_format(monkeypatch):
    plugins(monkeypatch, "mine")
    assert registry.format_names() == ("frozen_graph", "mine", "saved_model")
    assert registry.format_named("mine").name == "frozen_graph"


@pytest.mark.parametrize("names", [("mine", "mine"), ("saved_model",)])
def test_a_clash_of_names_is_an_error(monkeypatch, names):
    plugins(monkeypatch, *names)
    with pytest.raises(UsageError, match=f"'{names[0]}' is brought by both"):
        registry.format_names()
