"""What a recipe may say about the inputs of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.params import InputTree, param

if TYPE_CHECKING:
    from freezeflow.proof.calls import Wanted


@dataclass(frozen=True, kw_only=True)
class Random:
    """What seeded inputs of one key look like."""

    shape: tuple[int, ...] | None = param("Its shape, in place of the signature's.", default=None)
    low: float | None = param("The smallest number.", default=None)
    high: float | None = param(
        "The largest number: included for integers, excluded for floats.", default=None
    )
    values: tuple[float, ...] = param("Numbers to choose from, in place of a range.", default=())
    vocabulary: tuple[str, ...] = param("Strings to choose from.", default=())


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What every step says that runs a model on inputs."""

    inputs: InputTree | Mapping[str, InputTree] | None = param(
        "A file with inputs: .npz (arrays under the signature's keys), .npy, .json (as TensorFlow"
        " Serving's REST takes it) or .tfrecord (PredictionLogs); a folder of such files; or input keys"
        " with a .npy file, or a folder of them, for each.",
        default=None,
    )
    seed: int = param("Seed of the inputs that are made up.", default=0, minimum=0)
    random: Mapping[str, Random] = param(
        "Input key to what its seeded values look like.", default_factory=dict
    )
    allow_ops: Mapping[str, str] = param(
        "Ops of the original or the result that may run although they are not known to be harmless, each"
        " with the reason.",
        default_factory=dict,
    )


def wanted_of(said: Inputs, base: Path) -> Wanted:
    """The calls that are asked for; how many are made up, and of which sizes, is each step's own.

    Args:
        said: What the recipe says.
        base: The folder that relative paths start from.
    """
    from freezeflow.proof.calls import Wanted
    from freezeflow.proof.seeded import Wish

    files = said.inputs
    return Wanted(
        seed=said.seed,
        wishes={
            key: Wish(wish.shape, wish.low, wish.high, (*wish.values, *wish.vocabulary))
            for key, wish in said.random.items()
        },
        files=(
            {key: base / path for key, path in files.items()}
            if isinstance(files, Mapping)
            else None
            if files is None
            else base / files
        ),
    )


def input_problems(said: Inputs) -> Iterator[tuple[str, str]]:
    """Mistakes in what the recipe says: the parameter, and what is wrong with it."""
    for op, reason in said.allow_ops.items():
        if not reason.strip():
            yield "allow_ops", f"say why {op} may run"
