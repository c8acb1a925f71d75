"""The calls that a proof makes: from files, pictures, request logs, a seed, and the edges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.errors import StageFailed
from freezeflow.proof.dtypes import Array
from freezeflow.proof.edges import edge_inputs
from freezeflow.proof.files import describe, fitting, read_inputs, read_keyed
from freezeflow.proof.images import Pictures, picture_inputs
from freezeflow.proof.requests import EXAMPLES, Request, read_requests
from freezeflow.proof.seeded import (
    USUAL,
    Habits,
    Wish,
    concrete,
    seeded_input,
    seeded_inputs,
)
from freezeflow.values import DType, Shape, Signature, TensorSpec

Signatures = Mapping[str, Signature]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which calls are to be made.

    Args:
        samples: Number of seeded calls of each signature; None for `usual` of each that no file and no
            pictures cover.
        usual: See `samples`.
        seed: Seed of the inputs.
        sizes: Sizes of unknown dimensions, taken in turn call by call.
        wishes: Input key to what the recipe says of it.
        needs: Signature to input key to what the graph needs of it; see `freezeflow.proof.needs`.
        habits: Signature to what inputs look like of which nothing else is known, where not as usual.
        files: A file or folder, or one for each input key.
        pictures: Pictures for one of the inputs.
        warmup: The source's own warm-up requests.
        edges: Make the calls of `freezeflow.proof.edges`, too.
        seconds: Each call is given up after so long.
    """

    samples: int | None = None
    usual: int = 4
    seed: int = 0
    sizes: tuple[int, ...] = (2, 3, 1)
    wishes: Mapping[str, Wish] = dataclasses.field(default_factory=dict)
    needs: Mapping[str, Mapping[str, Wish]] = dataclasses.field(default_factory=dict)
    habits: Mapping[str, Habits] = dataclasses.field(default_factory=dict)
    files: Path | Mapping[str, Path] | None = None
    pictures: Pictures | None = None
    warmup: Path | None = None
    edges: bool = False
    seconds: float = 300.0


class Call(NamedTuple):
    """One call.

    Args:
        signature: The signature's name.
        inputs: Key to value.
        kind: ``file``, ``pictures``, ``warmup``, ``seeded``, or ``edge``.
        origin: Where it came from, in words.
        beside: What a file held beside the inputs (labels).
    """

    signature: str
    inputs: Mapping[str, Array]
    kind: str
    origin: str
    beside: Mapping[str, Array] = {}


def make_calls(signatures: Signatures, wanted: Wanted) -> list[Call]:
    """Every call, signature by signature.

    Raises:
        StageFailed: Something cannot be read, does not fit, or is for no signature.
        MissingExtra: Pictures need a library that is not installed.
    """
    unknown = set(wanted.wishes) - {key for s in signatures.values() for key in s.inputs}
    if unknown:
        raise StageFailed(f"no signature has an input named {min(unknown)!r}")
    given = _from_files(signatures, wanted)
    calls = []
    for name, signature in signatures.items():
        mine = [call for call in given if call.signature == name]
        mine += _from_pictures(name, signature, wanted)
        covered = any(call.kind in ("file", "pictures") for call in mine)
        usual = 0 if covered else wanted.usual
        calls += mine
        calls += _seeded(
            name, signature, wanted, usual if wanted.samples is None else wanted.samples
        )
        calls += _edges(name, signature, wanted)
    if wanted.pictures is not None and not any(call.kind == "pictures" for call in calls):
        raise StageFailed(
            "it is not clear which input takes the pictures",
            hint=f"Name it: validate: {{images: {{input: KEY, ...}}}}. {describe(signatures)}.",
        )
    return calls


def wishes_of(name: str, signature: Signature, wanted: Wanted) -> dict[str, Wish]:
    """What the seeded inputs of a signature look like: as the recipe says, the graph needs, or is usual."""
    needs = wanted.needs.get(name, {})
    return {
        key: wanted.wishes.get(key, Wish())
        .or_else(needs.get(key, Wish()), spec)
        .or_else(wanted.habits.get(name, USUAL).wish(spec), spec)
        for key, spec in signature.inputs.items()
    }


def assumed(
    signatures: Signatures, calls: Sequence[Call], wanted: Wanted
) -> dict[str, dict[str, str]]:
    """What seeded inputs are taken to look like, where neither signature nor recipe say it, in words.

    Returns:
        Signature to input key to what is assumed of it.
    """
    found: dict[str, dict[str, str]] = {}
    seeded = {call.signature for call in calls if call.kind in ("seeded", "edge")}
    for name in signatures:
        if name in seeded:
            for key, wish in wishes_of(name, signatures[name], wanted).items():
                words = _assumed(signatures[name].inputs[key], wanted.wishes.get(key, Wish()), wish)
                if words:
                    found.setdefault(name, {})[key] = words
    return found


def _assumed(spec: TensorSpec, given: Wish, wish: Wish) -> str:
    shape: Shape = None
    if given.shape is None and (wish.shape is not None or spec.shape is None):
        shape = wish.shape if wish.shape is not None else (None,)
    is_given = given.low is not None or given.high is not None or bool(given.choices)
    made = Wish(because=wish.because) if is_given else wish
    has_values = made.low is not None or bool(made.choices) or bool(made.pattern)
    return made.in_words(shape) if has_values or shape is not None else ""


def kept_requests(calls: Sequence[Call]) -> list[Request]:
    """The calls as requests, to be kept and made again."""
    return [Request(call.signature, call.inputs, f"{call.kind}: {call.origin}") for call in calls]


def _from_files(signatures: Signatures, wanted: Wanted) -> list[Call]:
    found: list[Call] = []
    if wanted.warmup is not None:
        for request in read_requests(wanted.warmup):
            found += _placed(request, signatures, "warmup", str(wanted.warmup))
    if wanted.files is None:
        return found
    if isinstance(wanted.files, Path):
        requests, where = read_inputs(wanted.files, signatures), str(wanted.files)
    else:
        requests, where = read_keyed(wanted.files), ", ".join(map(str, wanted.files.values()))
    of_files = [c for r in requests for c in _placed(r, signatures, "file", where)]
    if not of_files:
        held = sorted({key or "examples" for request in requests for key in request.inputs})
        raise StageFailed(
            f"holds {', '.join(held) or 'nothing'}, no signature's inputs",
            where=where,
            hint=f"The inputs are: {describe(signatures)}.",
        )
    return found + of_files


def _placed(request: Request, signatures: Signatures, kind: str, where: str) -> Iterator[Call]:
    """A request as calls of the signatures that can take it."""
    for name, signature in signatures.items():
        arrays = _named(request, name, signature)
        if arrays is None or not signature.inputs or not set(signature.inputs) <= set(arrays):
            continue
        inputs = {
            key: fitting(key, arrays[key], spec, where) for key, spec in signature.inputs.items()
        }
        beside = {key: array for key, array in arrays.items() if key not in signature.inputs}
        yield Call(name, inputs, kind, request.origin, beside)


def _named(request: Request, name: str, signature: Signature) -> Mapping[str, Array] | None:
    """A request's arrays by the keys of a signature; None if it is for another one."""
    if request.signature not in (None, name):
        return None
    if EXAMPLES in request.inputs:
        keys = [key for key, spec in signature.inputs.items() if spec.dtype is DType.STRING]
        return {keys[0]: request.inputs[EXAMPLES]} if len(keys) == 1 else None
    if request.signature is not None:
        return request.inputs
    by_tensor = {spec.tensor.partition(":")[0]: key for key, spec in signature.inputs.items()}
    return {
        key if key in signature.inputs else by_tensor.get(key.removesuffix(":0"), key): array
        for key, array in request.inputs.items()
    }


def _from_pictures(name: str, signature: Signature, wanted: Wanted) -> Iterator[Call]:
    if wanted.pictures is None:
        return
    for number, (origin, pictures) in enumerate(picture_inputs(wanted.pictures, signature)):
        count = len(next(iter(pictures.values())))
        inputs = {
            key: pictures[key]
            if key in pictures
            else _beside(name, key, signature, wanted, number, count)
            for key in signature.inputs
        }
        yield Call(name, inputs, "pictures", origin)


def _beside(
    name: str, key: str, signature: Signature, wanted: Wanted, number: int, count: int
) -> Array:
    """A seeded input beside a batch of pictures."""
    spec, wish = signature.inputs[key], wishes_of(name, signature, wanted)[key].of_size(count)
    dims = wanted.wishes.get(key, Wish()).shape
    if dims is None:
        dims = wish.shape if wish.shape is not None else spec.shape
    shape = concrete(dims, wanted.sizes[0])
    if shape and (dims is None or dims[0] is None):
        shape = (count, *shape[1:])
    return seeded_input(key, spec, wish, shape, seed=wanted.seed, number=number)


def _seeded(name: str, signature: Signature, wanted: Wanted, samples: int) -> Iterator[Call]:
    wishes = wishes_of(name, signature, wanted) if samples else {}
    sizes = [wanted.sizes[number % len(wanted.sizes)] for number in range(samples)]
    more = wanted.habits.get(name, USUAL).more if samples else ()
    for number, size in enumerate((*sizes, *more)):
        inputs = seeded_inputs(signature, wishes, seed=wanted.seed, number=number, size=size)
        yield Call(name, inputs, "seeded", f"call {number}")


def _edges(name: str, signature: Signature, wanted: Wanted) -> Iterator[Call]:
    if not wanted.edges:
        return
    size = wanted.sizes[0]
    wishes = wishes_of(name, signature, wanted)
    for origin, inputs in edge_inputs(signature, wishes, seed=wanted.seed, size=size):
        yield Call(name, inputs, "edge", origin)
