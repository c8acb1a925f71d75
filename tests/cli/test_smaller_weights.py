"""Recipes that store weights in fewer bytes, say what is lost, and publish what is within a tolerance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_with_tensorflow import demo

__all__ = ["demo"]  # a fixture
pytestmark = pytest.mark.slow

RECIPE = """\
version: 1
model: {{saved_model: digits/model}}
stages:
  - load
  - freeze
  - strip
  - fold: {{batch_norms: true}}
  - {smaller}
  - validate: {{level: served, atol: {atol}, inputs: digits/held_out.npz, labels: labels}}
  - export: "build/{{model}}.pb"
"""

# Name to the stage, the largest error of a weight that it may have over that of the weights' size, the
# largest share of the folded model's bytes that is left.
WAYS = {
    "float16": ("cast: float16", 5e-4, 0.56),
    "bfloat16": ("cast: bfloat16", 4e-3, 0.56),
    "half": ("cast: {to: float16, compute: half}", 5e-4, 0.58),
    "int8": ("quantize_weights", 1e-2, 0.35),
}


def write(folder: Path, atol: float) -> list[str]:
    names = []
    for name, (smaller, _, _) in WAYS.items():
        (folder / f"{name}.yaml").write_text(RECIPE.format(smaller=smaller, atol=atol))
        names.append(f"{name}.yaml")
    return names


def test_each_says_what_it_loses_and_stays_within_the_tolerance(cli: Cli, demo: Path) -> None:
    recipes = write(demo, atol=0.05)
    told = cli("run", recipes[0])
    assert "of their size (root mean square" in told.stdout
    assert "within tolerance in 1 call (largest difference 0.000" in told.stdout
    done = cli("run", *recipes, "--json")
    assert done.returncode == 0, done.stderr
    plans = json.loads(done.stdout)["plans"]
    for (_, error, left), plan in zip(WAYS.values(), plans, strict=True):
        steps = {step["stage"]: step["facts"] for step in plan["steps"]}
        loss = steps.get("cast") or steps["quantize_weights"]
        assert 0 < loss["relative_error"] < error
        assert loss["worst"]
        assert 0 < loss["bytes_after"] < left * loss["bytes_before"]
        (signature,) = steps["validate"]["verdict"]["signatures"].values()
        (output,) = signature["outputs"].values()
        assert 0 < output["max_abs"] < 0.05
        assert signature["accuracy"]["original"] - signature["accuracy"]["result"] <= 1 / 64
    assert {path.stem for path in demo.glob("build/*.pb")} == set(WAYS)


def test_what_loses_more_than_the_tolerance_is_not_published(cli: Cli, demo: Path) -> None:
    done = cli("run", write(demo, atol=1e-6)[-1])
    assert done.returncode == 4
    assert "is not within the tolerance: max_abs" in done.stderr
    assert "off by 0.00" in done.stdout
    assert not (demo / "build").exists()
