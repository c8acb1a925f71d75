"""Runs recipes on the demo's model and on models that tests build."""

import contextlib
import json
from pathlib import Path

import yaml

from freezeflow.engine.options import RunOptions
from freezeflow.engine.run import run
from freezeflow.plan import make_plan
from freezeflow.spec.recipe import load_recipes
from freezeflow.store.store import Store

DIGITS = Path(__file__).resolve().parents[2] / "pipelines" / "digits"


class Branches:
    """The exports of one model, each a branch of one diamond.

    Args:
        folder: A project for it.
        exports: Id to the parameters of an export; ``to`` is the id with the suffix, by default.
        model: The SavedModel.
        jobs: How many steps run side by side.
        before: Stages between ``load`` and the exports.
    """

    def __init__(
        self, folder, exports, *, model=DIGITS / "model", jobs=2, before=("freeze", "strip")
    ):
        self.folder = folder
        (folder / "freezeflow.toml").touch()
        (folder / "held_out.npz").write_bytes((DIGITS / "held_out.npz").read_bytes())
        stages = ["load", *before]
        stages += [{"export": p, "id": n, "needs": before[-1]} for n, p in exports.items()]
        data = {"version": 1, "model": {"saved_model": str(model)}, "stages": stages}
        recipe = folder / "r.yaml"
        recipe.write_text(yaml.safe_dump(data, sort_keys=False))
        plan = make_plan(load_recipes(recipe).recipes[0])
        options = RunOptions(jobs=jobs, keep_going=True)
        with contextlib.closing(Store.open(folder / "cache")) as store:
            result = run(plan, store, options)
        self.steps = {step.ref.step: step for step in result.steps}

    def facts(self, name):
        step = self.steps[name]
        assert step.status == "ran", f"{name}: {step.error}"
        return json.loads(step.facts_json)

    def error(self, name):
        step = self.steps[name]
        assert step.status == "failed", f"{name} {step.status}"
        return step.error
