"""YAML of all kinds, well and ill meant, read by libyaml's parser and by PyYAML's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from freezeflow.spec import tree
from freezeflow.spec.problems import InvalidRecipe, Problem
from freezeflow.spec.tree import parse_document, read_document

pytestmark = pytest.mark.usefixtures("parser")

PARSERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


@pytest.fixture(params=PARSERS, ids=lambda parser: parser.__name__)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "Loader", request.param)


def refused(text: str) -> Problem:
    """The one mistake for which a text is refused."""
    with pytest.raises(InvalidRecipe) as raised:
        parse_document(text, "r.yaml")
    (problem,) = raised.value.problems
    return problem


def noted(text: str) -> list[tuple[int, int, str]]:
    return [(p.mark.line, p.mark.column, p.message) for p in parse_document(text, "r").problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("~", None),
        ("null", None),
        ("", None),
        ("''", ""),
        ("'true'", "true"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-0x1F", "-0x1F"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("+12", 12),
        ("-0", 0),
        ("12:30", "12:30"),
        ("2026-11-23", "2026-11-23"),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        ("1e", "1e"),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("+.nan", "+.nan"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("9" * 60, int("9" * 60)),
        ("9" * 5000, "9" * 5000),
        ("|\n  a\n  b", "a\nb\n"),
        (">-\n  12", "12"),
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_document(f"a: {text}\n", "r").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_float() -> None:
    found = parse_document("a: .NaN", "r").data["a"]
    assert isinstance(found, float)
    assert found != found


def test_keys_are_text() -> None:
    document = parse_document("{true: 1, 2: 1, ~: 1, 'a b': 1}", "r")
    assert list(document.data) == ["true", "2", "~", "a b"]


def test_places() -> None:
    document = parse_document("é: {ü: [1,  x]}\nb:\n  - c: 'd'\n", "r")
    assert document.marks["é", "ü", 1][:2] == (1, 13)
    assert document.key_marks["é", "ü"][:2] == (1, 5)
    assert document.key_marks["b", 0, "c"][:2] == (3, 5)
    assert document.marks["b", 0, "c"][:2] == (3, 8)


@pytest.mark.parametrize("break_", ["\r\n", "\r"])
def test_line_breaks_of_other_systems(tmp_path: Path, break_: str) -> None:
    text = "a: 1\nb:\n  - c\n  - a: &x 1\n    a: 2\n"
    file = tmp_path / "r.yaml"
    file.write_bytes(text.replace("\n", break_).encode())
    other, here = read_document(file, "r"), parse_document(text, "r")
    assert other == here
    assert other.problems[0].source_line == "    a: 2"
    assert other.problems[0].mark[:2] == (5, 5)


def test_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    document = read_document(file, "r")
    assert document.data == {"a": 1}
    assert document.key_marks[("a",)][:2] == (1, 1)


def test_duplicate_keys_are_told_one_by_one() -> None:
    words = "is there twice, first in line 1"
    assert noted("{a: 1, a: 2, b: 3, 'b': 4}") == [
        (1, 8, f"key 'a' {words}"),
        (1, 20, f"key 'b' {words}"),
    ]
    assert parse_document("{a: 1, a: 2}", "r").data == {"a": 1}


def test_merge_keys() -> None:
    assert noted("a: &a {b: 1}\nc: {<<: *a}")[0][:2] == (2, 5)
    assert noted("'<<': 1") == []


def test_aliases() -> None:
    document = parse_document("a: &x {b: [1]}\nc: *x\n", "r")
    assert document.data == {"a": {"b": [1]}, "c": {"b": [1]}}
    assert document.marks["c", "b", 0] == document.marks["a", "b", 0]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: *x", (1, 4), "no anchor &x comes before"),
        ("a: &x {b: *x}", (1, 11), "alias *x refers to what it stands in"),
        ("&x [1, [2, *x]]", (1, 12), "alias *x refers to what it stands in"),
        ("a: 1\n---\nb: 2", (2, 1), "a second document begins here"),
        ("%YAML 1.1\n---\na: 1", None, "recipes are YAML 1.2"),
    ],
)
def test_refusals(text: str, place: tuple[int, int] | None, words: str) -> None:
    problem = refused(text)
    assert problem.message == words
    assert place in (None, problem.mark[:2])


def test_tabs() -> None:
    """Where a tab may stand depends on the parser; in comments and escapes it hurts nobody."""
    for text, place in (
        ("a:\n\tb: 1", (2, 1)),
        ("a:\t1", (1, 3)),
        ("a: b#\t", (1, 6)),
        ("a: ' #'\t", (1, 8)),
        ("a: '\n #'\t", (2, 4)),
        ("a: ''#\t", (1, 7)),
    ):
        problem = refused(text)
        assert (problem.message, problem.mark[:2]) == ("there is a tab", place)
    assert parse_document('a: "\\t" # \t\n#\tb', "r").data == {"a": "\t"}


def test_a_byte_order_mark_inside_is_refused() -> None:
    assert refused("a: 1\n\ufeffb: 2").mark[:2] == (2, 1)


# Without "?" and block scalars: on keys without values, and on comments close behind ">", the parsers
# differ in ways that matter to nobody. "~" stands for a space.
PIECES = "a b:~ -~ ~~ [ ] { } ,~ :~ ' \" ~# &a~ *a !t~ --- \n \r\n \\ @ é 1 \t <<:~ a:~1\n ~~b:~2\n"
SNIPPETS = st.sampled_from([piece.replace("~", " ") for piece in PIECES.split(" ")])


def outcome(text: str, parser: object) -> object:
    """What a text comes to: values, and the places of those that are not empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "Loader", parser)
        try:
            found = parse_document(text, "r")
        except InvalidRecipe:
            return "refused"
    marks = {path: found.marks[path] for path, value in tree.walk(found.data) if value is not None}
    return found.data, marks, found.problems


@pytest.mark.skipif(len(PARSERS) == 1, reason="PyYAML without libyaml")
@settings(max_examples=300, deadline=None)
@given(st.lists(SNIPPETS, max_size=14).map("".join))
def test_both_parsers_say_the_same(text: str) -> None:
    first, second = (outcome(text, parser) for parser in PARSERS)
    assert first == second
