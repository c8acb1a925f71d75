"""What the verdicts of validations say, figure by figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from freezeflow.values import Json


class Metric(NamedTuple):
    """A figure: what it is, its value as text, and of what (``validate/serving_default/y``)."""

    kind: str
    value: str
    part: str


def metrics_of(verdicts: Mapping[str, Json]) -> Iterator[Metric]:
    """The figures of a model's verdicts that tell a reader how sure they are."""
    for step, verdict in sorted(verdicts.items()):
        for name, signature in sorted(verdict["signatures"].items()):
            place = f"{step}/{name}"
            yield Metric("calls compared", str(signature["calls"]), place)
            for key, output in sorted(signature["outputs"].items()):
                largest = output.get("max_abs")
                if largest is not None:
                    yield Metric("largest absolute difference", f"{largest:.9g}", f"{place}/{key}")
            accuracy = signature.get("accuracy")
            if accuracy:
                labels = f"{place}/{accuracy['output']}, {accuracy['labels']} labels"
                yield Metric("accuracy", f"{accuracy['result']:.9g}", labels)
                yield Metric("accuracy of the original", f"{accuracy['original']:.9g}", labels)
