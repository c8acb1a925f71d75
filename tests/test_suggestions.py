from pathlib import Path

import pytest

from freezeflow.suggestions import did_you_mean, near_miss, near_path


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("flod", ["fold", "load"], "fold"),
        ("LOAD", ["fold", "load"], "load"),
        ("xyz", ["fold", "load"], None),
        ("name_1", [f"name_{i}" for i in range(301)], None),
    ],
)
def test_what_was_meant(word, known, expected):
    assert near_miss(word, known) == expected


def test_names_are_listed_where_none_is_near():
    assert did_you_mean("x", ["load", "freeze"]) == "There are: load, freeze."
    assert did_you_mean("x", {"load", "freeze"}) == "There are: freeze, load."
    assert did_you_mean("x", [f"long name {i}" for i in range(13)]) == ""
    assert did_you_mean("x", []) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models/modle", "models/model"),
        ("modles/model", "models/model"),
        ("modles/nothing", None),
        ("models/other", None),
        ("modles/deeper/model", None),
        ("~/models/modle", "{home}/models/model"),
        ("~/models/model", "{home}/models/model"),
    ],
)
def test_a_path(tmp_path, monkeypatch, text, expected):
    (tmp_path / "models" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = near_path(Path(text))
    assert found == (expected and Path(expected.format(home=tmp_path)))
