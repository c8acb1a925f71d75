"""Plans: the order of the steps, their JSON, and when a kept one still counts."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freezeflow import plan as plans
from freezeflow.errors import UsageError
from freezeflow.plan import (
    FORMAT,
    Plan,
    compiled_plans,
    decode_plans,
    encode_plans,
    make_plan,
    selected,
)
from freezeflow.spec.problems import InvalidRecipe
from freezeflow.spec.recipe import load_recipes
from freezeflow.stages import registry

HEAD = "version: 1\nmodel: {saved_model: model}\n"
CHAIN = ["load", "freeze", "{export: build/x.pb}"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "saved_model.pb").touch()
    (folder / "pyproject.toml").touch()
    return folder


def written(project: Path, stages: list[str], head: str = HEAD) -> Path:
    recipe = project / "recipe.yaml"
    items = "".join(f"  - {stage}\n" for stage in stages)
    recipe.write_text(f"{head}stages:\n{items}", encoding="utf-8")
    return recipe


def planned(project: Path, *stages: str) -> Plan:
    return make_plan(load_recipes(written(project, list(stages))).recipes[0])


def order(plan: Plan) -> list[str]:
    return [step.id for step in plan.steps]


# ---------------------------------------------------------------- the steps


def test_chain(project: Path) -> None:
    plan = planned(project, "load", "freeze", "strip", "{export: 'build/{model}.pb'}")
    assert order(plan) == ["load", "freeze", "strip", "export"]
    assert [step.needs for step in plan.steps] == [(), ("load",), ("freeze",), ("strip",)]
    assert plan.name == "recipe"
    assert plan.recipe == project / "recipe.yaml"
    assert plan.steps[-1].output_files == (project / "build" / "recipe.pb",)
    assert [step.role for step in plan.steps] == ["load", "transform", "transform", "export"]


def test_diamond(project: Path) -> None:
    plan = planned(
        project,
        "load",
        "{freeze: , id: left, needs: load}",
        "{strip: , id: right, needs: load}",
        "{export: build/x.pb, needs: [right, left]}",
    )
    assert order(plan) == ["load", "left", "right", "export"]
    assert plan.steps[-1].needs == ("right", "left")


def test_needs_come_first_and_ties_keep_the_order_of_the_file(project: Path) -> None:
    plan = planned(
        project,
        "load",
        "{strip: , id: z, needs: m}",
        "{strip: , id: y, needs: load}",
        "{strip: , id: m, needs: load}",
        "{strip: , id: a, needs: load}",
    )
    assert order(plan) == ["load", "y", "m", "z", "a"]


def test_stages_of_one_name_get_numbers(project: Path) -> None:
    plan = planned(project, "load", "strip", "{strip: , id: strip-2}", "strip", "strip")
    assert order(plan) == ["load", "strip", "strip-2", "strip-3", "strip-4"]


def test_only_what_needs_tensorflow_has_its_version(project: Path) -> None:
    steps = {step.id: step for step in planned(project, "load", "fold", "validate").steps}
    assert "tensorflow" not in steps["load"].tools
    assert steps["fold"].tools["tensorflow"].startswith("2.")
    assert steps["fold"].in_tensorflow
    assert steps["validate"].reads_source


def test_inputs_belong_to_the_step(project: Path) -> None:
    (project / "in.npz").touch()
    plan = planned(project, "load", "{validate: {inputs: ./in.npz}}")
    assert plan.steps[1].input_files == {"inputs": project / "in.npz"}


def test_json_and_back(project: Path) -> None:
    (project / "in.npz").touch()
    stages = ["load", "strip: [Print]", "{validate: {inputs: in.npz}}", "{export: build/x.pb}"]
    plan = planned(project, *stages)
    assert decode_plans(encode_plans([plan])) == (plan,)


def test_other_json_is_refused(project: Path) -> None:
    data = encode_plans([planned(project, *CHAIN)])
    with pytest.raises(ValueError, match="freezeflow"):
        decode_plans(data.replace(FORMAT.encode(), b"freezeflow.plan/0"))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(["max_growth: 3", "max_bytes: 9"]), st.permutations(["A: x", "B: y"]))
def test_the_order_of_a_mapping_says_nothing(
    project: Path, fold: list[str], ops: list[str]
) -> None:
    def text(fold: list[str], ops: list[str]) -> str:
        validate = f"{{validate: {{allow_ops: {{{', '.join(ops)}}}}}}}"
        plan = planned(project, "load", f"fold: {{{', '.join(fold)}}}", validate)
        return encode_plans([plan]).decode()

    assert text(fold, ops) == text(["max_growth: 3", "max_bytes: 9"], ["A: x", "B: y"])


# ---------------------------------------------------------------- kept plans


class Kept:
    """A folder of kept plans that tells whether a plan came from it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.made = 0
        make = plans.make_plan

        def counted(recipe: object) -> Plan:
            self.made += 1
            return make(recipe)  # type: ignore[arg-type]

        monkeypatch.setattr(plans, "make_plan", counted)

    def plan(self, recipe: Path, **set_vars: str) -> tuple[str, Plan]:
        before = self.made
        (found,) = compiled_plans(recipe, self.folder, set_vars=set_vars)
        return ("made" if self.made > before else "kept"), found

    def look(self, recipe: Path, **set_vars: str) -> str:
        return self.plan(recipe, **set_vars)[0]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(tmp_path / "plans", monkeypatch)


def test_a_kept_plan_is_the_plan(project: Path, kept: Kept) -> None:
    recipe = written(project, CHAIN)
    word, made = kept.plan(recipe)
    assert word == "made"
    assert kept.plan(recipe) == ("kept", made)
    assert made == make_plan(load_recipes(recipe).recipes[0])


def test_the_name_under_which_it_is_called_does_not_matter(
    project: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = written(project, CHAIN)
    kept.look(recipe)
    monkeypatch.chdir(project)
    assert kept.look(Path("recipe.yaml")) == "kept"


def test_another_text_is_another_plan(project: Path, kept: Kept) -> None:
    kept.look(written(project, CHAIN))
    recipe = written(project, [*CHAIN, "strip"])
    assert kept.look(recipe) == "made"
    assert kept.look(recipe) == "kept"


def test_a_mistake_is_told_every_time(project: Path, kept: Kept) -> None:
    recipe = written(project, ["load", "freez"])
    for _ in range(2):
        with pytest.raises(InvalidRecipe, match="unknown stage"):
            kept.look(recipe)
    assert not kept.folder.exists()


def test_set_variables(project: Path, kept: Kept) -> None:
    recipe = written(project, ["load", "fold: {max_bytes: 1}"], f"{HEAD}vars: {{a: 1}}\n")
    assert kept.look(recipe) == "made"
    assert kept.look(recipe, a="2") == "made"
    assert kept.look(recipe, a="2") == "kept"
    assert kept.look(recipe) == "kept"


def test_environment(project: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    head = f"{HEAD}env: [FREEZEFLOW_TEST_SET]\n"
    recipe = written(project, ["load", '{export: "build/${FREEZEFLOW_TEST_SET}.pb"}'], head)
    monkeypatch.setenv("FREEZEFLOW_TEST_SET", "one")
    kept.look(recipe)
    monkeypatch.setenv("FREEZEFLOW_TEST_OTHER", "one")
    assert kept.look(recipe) == "kept"
    monkeypatch.setenv("FREEZEFLOW_TEST_SET", "two")
    word, plan = kept.plan(recipe)
    assert (word, plan.steps[1].output_files) == ("made", (project / "build" / "two.pb",))


def test_files_that_come_and_go(project: Path, kept: Kept) -> None:
    recipe = written(project, CHAIN)
    kept.look(recipe)
    (project / "model" / "saved_model.pb").unlink()
    with pytest.raises(InvalidRecipe):
        kept.look(recipe)
    (project / "model" / "saved_model.pb").touch()
    assert kept.look(recipe) == "kept"
    # A project of its own: the recipe's folder is now inside another one.
    (project / ".git").mkdir()
    assert kept.look(recipe) == "made"


def test_a_missing_file_that_appears(project: Path, kept: Kept) -> None:
    recipe = written(project, ["load", "{validate: {inputs: in.npz}}"])
    with pytest.raises(InvalidRecipe):
        kept.look(recipe)
    (project / "in.npz").touch()
    assert kept.look(recipe) == "made"


def test_models_that_come_and_go(project: Path, kept: Kept) -> None:
    head = "version: 1\nmodels: 'zoo/*'\n"
    recipe = written(project, ["load", "export: 'build/{model}.pb'"], head)

    def look() -> tuple[str, list[str]]:
        made = kept.made
        found = compiled_plans(recipe, kept.folder)
        return ("made" if kept.made > made else "kept"), [plan.name for plan in found]

    for name in ("a", "b"):
        (project / "zoo" / name).mkdir(parents=True)
        (project / "zoo" / name / "saved_model.pb").touch()
    assert look() == ("made", ["a", "b"])
    assert look() == ("kept", ["a", "b"])
    (project / "zoo/c").mkdir()
    assert look() == ("made", ["a", "b"])
    (project / "zoo/c/saved_model.pb").touch()
    assert look() == ("made", ["a", "b", "c"])
    (project / "zoo/a/saved_model.pb").unlink()
    assert look() == ("made", ["b", "c"])


def test_selected(project: Path) -> None:
    plans = [dataclasses.replace(planned(project, "load"), name=name) for name in ("ab", "ac", "b")]
    assert [plan.name for plan in selected(plans, ["a*"])] == ["ab", "ac"]
    assert [plan.name for plan in selected(plans, ["b", "ac"])] == ["ac", "b"]
    assert len(selected(plans, [])) == 3
    with pytest.raises(UsageError, match="nothing is called 'x\\*'") as raised:
        selected(plans, ["a*", "x*"])
    assert raised.value.hint == "There are: ab, ac, b."


def test_a_changed_stage_file(project: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of freezeflow's own files the times are looked at once in a process."""
    recipe = written(project, CHAIN)
    kept.look(recipe)
    modified = plans._modified
    monkeypatch.setattr(plans, "_modified", lambda path: modified(path) + path.endswith("load.py"))
    plans._digest_of_house.cache_clear()
    assert kept.look(recipe) == "made"
    assert kept.look(recipe) == "kept"
    monkeypatch.undo()
    plans._digest_of_house.cache_clear()


PLUGIN = """
import dataclasses
from freezeflow.params import param
from freezeflow.stages.stage import Stage

@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    size: int = param("How large.", default=1)

STAGE = Stage(name="melt", summary="Melts.", version=1, params=Params, run=print)
"""


def test_a_changed_stage_of_a_plugin(
    project: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = tmp_path / "plugin_that_melts.py"
    module.write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        registry, "stage_modules", lambda: {**registry.BUILTIN, "melt": module.stem}
    )
    for room in ("schema", "stage_list", "structure"):
        name = f"freezeflow.spec.{room}.stage_modules"
        monkeypatch.setattr(name, registry.stage_modules)
    recipe = written(project, ["load", "melt"])
    try:
        assert [kept.look(recipe), kept.look(recipe)] == ["made", "kept"]
        os.utime(module, ns=(1, 1))
        assert kept.look(recipe) == "made"
    finally:
        registry.stage_named.cache_clear()
        sys.modules.pop(module.stem)


def test_an_installed_package(
    project: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A package that may bring a stage; other files on the search path do not matter."""
    packages = tmp_path / "packages"
    packages.mkdir()
    recipe = written(project, CHAIN)

    def look() -> str:
        plans._digest_of_house.cache_clear()
        return kept.look(recipe)

    monkeypatch.syspath_prepend(str(packages))
    look()
    (packages / "notes.txt").touch()
    assert look() == "kept"
    (packages / "other-1.0.dist-info").mkdir()
    assert look() == "made"
    monkeypatch.undo()
    plans._digest_of_house.cache_clear()


def test_one_recipe_keeps_a_bounded_number(project: Path, kept: Kept) -> None:
    for number in range(12):
        recipe = written(project, CHAIN, f"{HEAD}vars: {{a: {number}}}\n")
        kept.look(recipe)
        kept.look(recipe, a=str(number))
    assert len(list(kept.folder.iterdir())) <= 8


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:-1],
        lambda whole: b"0" * 64 + whole[64:],
        lambda whole: whole.replace(b"freeze", b"freese"),
        lambda whole: b"\xff" * 200,
        lambda whole: b"[" * 100_000,
    ],
    ids=["empty", "cut", "digest", "changed", "bytes", "nested"],
)
def test_a_broken_one_is_made_again(
    project: Path, kept: Kept, damage: Callable[[bytes], bytes]
) -> None:
    recipe = written(project, CHAIN)
    kept.look(recipe)
    (file,) = kept.folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert kept.look(recipe) == "made"
    assert kept.look(recipe) == "kept"


def test_a_folder_that_cannot_be_written_stops_nothing(project: Path, kept: Kept) -> None:
    recipe = written(project, CHAIN)
    kept.folder.write_text("a file where the folder should be")
    assert [kept.look(recipe), kept.look(recipe)] == ["made", "made"]


def test_a_recipe_that_changes_while_it_is_read_is_not_kept(
    project: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = written(project, CHAIN)

    def changed(loaded: object) -> Plan:
        recipe.write_text(recipe.read_text() + "  - strip\n")
        return make_plan(loaded)  # type: ignore[arg-type]

    monkeypatch.setattr(plans, "make_plan", changed)
    compiled_plans(recipe, kept.folder)
    monkeypatch.setattr(plans, "make_plan", make_plan)
    assert order(compiled_plans(recipe, kept.folder)[0]) == ["load", "freeze", "export", "strip"]


_LOOK = """
import sys
from pathlib import Path
from freezeflow.plan import compiled_plans
(plan,) = compiled_plans(Path(sys.argv[1]), Path(sys.argv[2]))
heavy = {"yaml", "networkx", "jsonschema", "numpy", "tensorflow", "rich", "importlib.metadata"}
mine = {name for name in sys.modules if name.startswith(("freezeflow.spec", "freezeflow.stages"))}
print(len(plan.steps), sorted(heavy & set(sys.modules) | mine))
"""


def test_a_kept_plan_takes_nothing_but_look_ups(project: Path, tmp_path: Path) -> None:
    recipe = written(project, CHAIN)
    command = [sys.executable, "-c", _LOOK, str(recipe), str(tmp_path / "plans")]
    environment = {**os.environ, "PYTHONPATH": str(Path(plans.__file__).parent.parent)}
    for expected in ("yaml", "3 []\n"):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert expected in done.stdout
