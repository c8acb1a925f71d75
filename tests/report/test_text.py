from __future__ import annotations

from pathlib import Path

import pytest

from freezeflow.report import text


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (65_847, "65.8 KB"),
        (999_940, "999.9 KB"),
        (999_960, "1.0 MB"),
        (2_600_000_000, "2.6 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_size(nbytes: int, shown: str) -> None:
    assert text.size(nbytes) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0.004, "0.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (119.9, "119.9 s"),
        (119.96, "2 min 0 s"),
        (3599.6, "60 min 0 s"),
    ],
)
def test_seconds(amount: float, shown: str) -> None:
    assert text.seconds(amount) == shown


def test_count() -> None:
    assert text.count(1, "step") == "1 step"
    assert text.count(0, "step") == "0 steps"
    assert text.count(1200, "step is", "steps are") == "1,200 steps are"


def test_columns_line_up_whatever_is_in_them() -> None:
    rows = [["a", text.paint("12", "red", color=True), "x"], ["ビ", "5"], ["é", "123", "y"]]
    assert text.table(rows, indent=" ", right=(1,)).splitlines() == [
        " a    \033[31m12\033[0m  x",
        " ビ    5",
        " é   123  y",
    ]


def test_nothing_is_an_empty_table() -> None:
    assert text.table([]) == ""


def test_paths_as_one_would_type_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert text.short_path(tmp_path / "a" / "b.pb") == "a/b.pb"
    assert text.short_path("/usr") == "/usr"


def test_shapes() -> None:
    assert text.shape_text(None) == "[...]"
    assert text.shape_text(()) == "[]"
    assert text.shape_text((None, 8)) == "[?, 8]"
