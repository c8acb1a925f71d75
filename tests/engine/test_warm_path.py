"""A run in which nothing has changed is nothing but look-ups."""

import subprocess
import sys
from pathlib import Path

from freezeflow.engine.run import run, run_plans
from freezeflow.plan import Plan
from freezeflow.store.store import Store
from tests.engine.builders import CHANGE, EXPORT, LOAD, chain, make_source, plan, step

_SCRIPT = """
import sys
from pathlib import Path
from freezeflow.engine.run import run
from freezeflow.plan import decode_plans
from freezeflow.store.store import Store

(plan,) = decode_plans(Path(sys.argv[1]).read_bytes())
result = run(plan, Store.open(sys.argv[2]))
heavy = {
    "tensorflow", "numpy", "networkx", "jsonschema", "rich", "yaml", "google", "crc32c",
    "freezeflow.graph.graph", "multiprocessing", "concurrent", "asyncio", "logging",
}
print([step.status for step in result.steps], sorted(heavy & set(sys.modules)))
"""


def test_imports_nothing_heavy(folder: Path, store: Store, tmp_path: Path) -> None:
    from freezeflow.plan import encode_plans

    run(chain(folder), store)
    (tmp_path / "plans").write_bytes(encode_plans([chain(folder)]))
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "plans"), str(store.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "['cached', 'cached', 'cached'] []\n"


def test_the_source_is_not_read(folder: Path, store: Store, monkeypatch: object) -> None:
    """Its digest comes from the stat cache: the file may even be unreadable."""
    run(chain(folder), store)
    weights = folder / "model" / "variables" / "weights"
    before = weights.stat().st_atime_ns
    run(chain(folder), store)
    assert weights.stat().st_atime_ns == before


def many(folder: Path, count: int) -> list[Plan]:
    """Plans of six steps over a model of their own each."""
    plans = []
    for number in range(count):
        base = folder / str(number)
        make_source(base / "model")
        changes = [
            step(base, CHANGE, ["load", "a", "b"][i], name="abc"[i], rename=f"n{i}", count="")
            for i in range(3)
        ]
        plans.append(
            plan(
                base,
                step(base, LOAD, count=""),
                *changes,
                step(base, EXPORT, "c", name="one", to="build/one.pb", count=""),
                step(base, EXPORT, "one", name="two", to="build/two.pb", count=""),
            )
        )
    return plans


def test_many_plans_are_only_looked_up(tmp_path: Path, store: Store) -> None:
    plans = many(tmp_path / "many", 60)
    assert run_plans(plans, store).ok
    assert run_plans(plans, store).ok
    result = run_plans(plans, store)
    assert {step.status for step in result.steps} == {"cached"}
    assert len(result.steps) == 360
