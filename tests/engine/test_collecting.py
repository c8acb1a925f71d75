"""gc beside runs of other processes, and what recipes keep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from freezeflow.engine.collecting import clean
from freezeflow.engine.run import run
from freezeflow.plan import encode_plans
from freezeflow.store import upkeep
from freezeflow.store.collecting import Rules
from freezeflow.store.store import Store
from tests.engine.builders import CHANGE, EXPORT, LOAD, chain, plan, step

_RUNNER = """
import json, shutil, sys
from pathlib import Path
from freezeflow.engine.events import StepWarned
from freezeflow.engine.run import run
from freezeflow.plan import decode_plans
from freezeflow.store.store import Store

(plan,) = decode_plans(Path(sys.argv[1]).read_bytes())
warnings = []
def hear(event):
    if isinstance(event, StepWarned):
        warnings.append(event.message)
for _ in range(25):
    store = Store.open(sys.argv[2])
    result = run(plan, store, on_event=hear)
    if not result.ok:
        warnings += [str(step.error) for step in result.failures]
    store.close()
print(json.dumps(warnings))
"""


def test_gc_beside_runs_takes_nothing_from_them(folder: Path, store: Store, tmp_path: Path) -> None:
    """Everything goes, again and again, while two processes run; they never miss what they used."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runners = []
    for name in ("one", "two"):
        file = tmp_path / f"{name}.json"
        steps = [
            step(folder, LOAD),
            step(folder, CHANGE, "load", fold=True, rename=name),
            step(folder, EXPORT, "change", to=f"build/{name}.pb"),
        ]
        file.write_bytes(encode_plans([plan(folder, *steps, name=name)]))
        command = [sys.executable, "-c", _RUNNER, str(file), str(store.folder)]
        runners.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        )
    rounds = 0
    while any(runner.poll() is None for runner in runners):
        clean(store, Rules(everything=True))
        rounds += 1
    assert [json.loads(runner.communicate()[0]) for runner in runners] == [[], []]
    assert rounds > 10
    assert upkeep.verify(store) == []


def test_what_recipes_use_stays(folder: Path, store: Store) -> None:
    kept, other = chain(folder), chain(folder, rename="other")
    run(other, store)
    run(kept, store)
    gone = clean(store, Rules(), roots=[kept], dry_run=True)
    assert len(gone.collected.actions) == 2
    assert clean(store, Rules(), roots=[kept]) == gone
    assert all(step.status == "cached" for step in run(kept, store).steps)


def test_plans_of_recipes_that_are_gone_go(folder: Path, store: Store) -> None:
    from freezeflow.plan import compiled_plans

    recipes = []
    for name in ("stays", "goes"):
        recipes.append(folder / f"{name}.yaml")
        recipes[-1].write_text(
            f"version: 1\nname: {name}\nmodel: {{saved_model: model}}\nstages: [load]\n"
        )
        compiled_plans(recipes[-1], store.folder / "plans")
    (store.folder / "plans" / "damaged.json").write_text("{")
    recipes[1].unlink()
    said = clean(store, Rules(), dry_run=True).plans
    assert len(said) == 2
    assert all(path.exists() for path in said)
    assert clean(store, Rules()).plans == said
    assert len(list((store.folder / "plans").iterdir())) == 1
