import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from freezeflow.engine.direct import run_chain
from freezeflow.errors import ModelRefused, StageFailed
from freezeflow.stages.stage import Outcome, Stage, StageInput
from freezeflow.values import ModelSource
from tests.engine.builders import CHANGE, EXPORT, LOAD, Params


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the chain's scratch folder is made."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def test_a_chain(folder: Path, temporary: Path) -> None:
    seen: list[Stage] = []
    result = run_chain(
        ModelSource(kind="saved_model", path=folder / "model"),
        [
            (LOAD, Params(warn="careful")),
            (CHANGE, Params(fold=True)),
            (EXPORT, Params(to="build/out.pb")),
        ],
        base=folder,
        on_stage=seen.append,
    )
    assert seen == [LOAD, CHANGE, EXPORT]
    assert result.warnings == ("careful",)
    assert [len(outcome.files) for outcome in result.outcomes] == [0, 0, 1]
    assert list(result.model.graph.nodes) == ["x", "weights", "y", "folded"]
    # The folded constant came out of the scratch folder into the file.
    assert b"fold" * 1000 in (folder / "build" / "out.pb").read_bytes()
    assert list(temporary.iterdir()) == []


def test_a_refusal_ends_the_chain(folder: Path, temporary: Path) -> None:
    with pytest.raises(ModelRefused, match="this will not do"):
        run_chain(
            ModelSource(kind="saved_model", path=folder / "model"),
            [(LOAD, Params(fail="refuse")), (EXPORT, Params(to="build/out.pb"))],
            base=folder,
        )
    assert not (folder / "build").exists()
    assert list(temporary.iterdir()) == []


def test_a_graph_that_is_not_valid_names_the_stage(folder: Path) -> None:
    import dataclasses

    def spoil(given: StageInput, params: Params, context: object) -> Outcome:
        assert given.model is not None
        nodes = dict(given.model.graph.nodes)
        del nodes["weights"]
        graph = dataclasses.replace(given.model.graph, nodes=nodes)
        return Outcome(model=dataclasses.replace(given.model, graph=graph))

    spoiler = dataclasses.replace(CHANGE, name="spoil", run=spoil)
    with pytest.raises(StageFailed, match="spoil gave a graph that is not valid"):
        run_chain(
            ModelSource(kind="saved_model", path=folder / "model"),
            [(LOAD, Params()), (spoiler, Params())],
            base=folder,
        )


_DIGITS = Path(__file__).parents[2] / "pipelines" / "digits" / "model"

_SCRIPT = """
import sys
from pathlib import Path
from freezeflow.engine.direct import run_chain
from freezeflow.stages import export, freeze, load, strip
from freezeflow.values import ModelSource

stages = [
    (load.STAGE, load.Params()),
    (freeze.STAGE, freeze.Params()),
    (strip.STAGE, strip.Params()),
    (export.STAGE, export.Params(to="out.pb")),
]
run_chain(ModelSource(kind="saved_model", path=Path(sys.argv[1])), stages, base=Path(sys.argv[2]))
heavy = {"tensorflow", "numpy", "networkx", "jsonschema", "rich", "yaml", "sqlite3"}
print(sorted(heavy & set(sys.modules)))
"""


def test_freezing_a_real_model_needs_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(_DIGITS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert (tmp_path / "out.pb").stat().st_size > 50_000
