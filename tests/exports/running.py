"""Runs recipes on the demo's model and on models that tests build."""

import contextlib
import json
import re
from pathlib import Path

import pytest
import yaml

from freezeflow.engine.options import RunOptions
from freezeflow.engine.run import run
from freezeflow.exports import stablehlo
from freezeflow.plan import make_plan
from freezeflow.spec.recipe import load_recipes
from freezeflow.store.store import Store

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Extra to the names of its packages.
EXTRAS = {
    name: {re.split(r"[<>=\[]", package)[0] for package in packages}
    for name, packages in {"": [], **PROJECT["optional-dependencies"]}.items()
}

DIGITS = ROOT / "pipelines" / "digits"


class Branches:
    """The exports of one model, each a branch of one diamond.

    Args:
        folder: A project for it.
        exports: Id to the parameters of an export; ``to`` is the id with the suffix, by default.
        model: The SavedModel.
        jobs: How many steps run side by side.
        before: Stages between ``load`` and the exports.
        checks: Id to the id of an export and the parameters of a ``validate`` behind it.
        signatures: Which of the model's signatures are taken; by default the usual one.
    """

    def __init__(
        self,
        folder,
        exports,
        *,
        model=DIGITS / "model",
        jobs=2,
        before=("freeze", "strip"),
        checks=None,
        signatures=None,
    ):
        self.folder = folder
        (folder / "freezeflow.toml").touch()
        (folder / "held_out.npz").write_bytes((DIGITS / "held_out.npz").read_bytes())
        lacking = {n for n, p in exports.items() if self._lacks_converter(p)}
        exports = {n: p for n, p in exports.items() if n not in lacking}
        checks = {n: (need, p) for n, (need, p) in (checks or {}).items() if need not in lacking}
        stages = ["load", *before]
        stages += [{"export": p, "id": n, "needs": before[-1]} for n, p in exports.items()]
        stages += [
            {"validate": params, "id": name, "needs": need}
            for name, (need, params) in checks.items()
        ]
        source = {"saved_model": str(model), **({"signatures": signatures} if signatures else {})}
        data = {"version": 1, "model": source, "stages": stages}
        recipe = folder / "r.yaml"
        recipe.write_text(yaml.safe_dump(data, sort_keys=False))
        plan = make_plan(load_recipes(recipe).recipes[0])
        options = RunOptions(jobs=jobs, keep_going=True)
        with contextlib.closing(Store.open(folder / "cache")) as store:
            result = run(plan, store, options)
        self.plan = plan
        self.steps = {step.ref.step: step for step in result.steps}

    def facts(self, name):
        step = self._step(name)
        assert step.status == "ran", f"{name}: {step.error}"
        return json.loads(step.facts_json)

    def error(self, name):
        step = self._step(name)
        assert step.status == "failed", f"{name} {step.status}"
        return step.error

    def _step(self, name):
        if name.startswith("tfjs") and name not in self.steps:
            pytest.skip("Node.js or npm is not here, or npm cannot install @tensorflow/tfjs")
        if self._lacks_converter({"format": "stablehlo"}) and name not in self.steps:
            pytest.skip("TensorFlow before 2.17 has no converter for StableHLO")
        return self.steps[name]

    @staticmethod
    def _lacks_converter(params):
        return params.get("format") == "stablehlo" and stablehlo.problems(stablehlo.Params())

    def plan_step(self, name):
        (step,) = [step for step in self.plan.steps if step.id == name]
        return step

    def published(self, name):
        self.facts(name)
        return [file.path for file in self.steps[name].files]

    def target(self, name):
        (path,) = self.plan_step(name).output_files
        return path
