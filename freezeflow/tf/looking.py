"""Looks at every tensor of one call: what it held, as a digest, some tensors at a time."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from freezeflow.graph import walk
from freezeflow.graph.frames import Path, frames_of
from freezeflow.graph.graph import Graph, Node, data_inputs, node_of
from freezeflow.graph.op_policy import RANDOM
from freezeflow.graph.variables import RESOURCE_HANDLE, WRITES
from freezeflow.proof.divergence import Side as Traced
from freezeflow.proof.dtypes import Array
from freezeflow.proof.rounds import (
    BACK,
    EXITS,
    Record,
    Round,
    array_flows,
    as_traced,
    behind_loops,
    exits_of,
    leaving,
)
from freezeflow.tf.recording import Recorder
from freezeflow.tf.sessions import RUN_ERRORS, as_array, exact_config
from freezeflow.tf.sides import Arrays, Side, full_name

v1 = tf.compat.v1

# Tensors that are fetched together, and bytes that they should not exceed by far.
_FIRST_BATCH = 32
_MOST_BYTES = 128 * 1024 * 1024

# What a loop without an end is given, to record its first rounds.
_SECONDS_FOR_ROUNDS = 3.0

_NO_VALUE = frozenset({tf.resource, tf.variant})


class Looker:
    """One side at one call, its tensors to be fetched by name, as the exact level runs it.

    Args:
        side: The side.
        graph: Its graph, without calls.
        clocks: The tensors that count the rounds of its loops, by frames (`rounds.with_clocks`).
        calls: The calls before this one, and this one: those before change what variables hold.
        output: The tensor that differs from the other side's.
        finishes: Whether the call comes to an end; of one that does not, only what does not wait for a loop,
            and the first rounds of its loops, can be looked at.
    """

    def __init__(
        self,
        side: Side,
        graph: Graph,
        clocks: Mapping[Path, Sequence[str]],
        calls: Sequence[tuple[str, Arrays]],
        output: str,
        *,
        finishes: bool,
    ) -> None:
        self._side = side
        self._before = calls[:-1]
        name, inputs = calls[-1]
        ends = side.signatures[name].inputs
        self.feeds = {full_name(ends[key].tensor): value for key, value in inputs.items()}
        self.feeds.update(side.always)
        self.fed = {node_of(tensor) for tensor in self.feeds}
        self.output = output
        outputs = [spec.tensor for spec in side.signatures[name].outputs.values()]
        reached = walk.reached_nodes(_without_inputs(graph.nodes, self.fed), [output, *outputs])
        self.nodes = {
            node_name: _cut(node, self.fed)
            for node_name, node in graph.nodes.items()
            if node_name in reached
        }
        self._clocks = clocks
        self._frames = frames_of(self.nodes)
        self._flows = array_flows(self.nodes)
        self._finishes = finishes
        self._waiting = frozenset() if finishes else behind_loops(self.nodes)
        self._rounds: Mapping[Path, Round] = {}
        self._hidden: Set[Path] = frozenset()
        self._keeps_state = any(
            WRITES.match(node.op) or node.op in RANDOM for node in self.nodes.values()
        )
        self._session: Any = None
        self._reads = self._read_variables()

    def _read_variables(self) -> dict[str, str]:
        """Variables' handles with the tensors that read them, beside what the graph itself reads."""
        handles = [name for name, node in self.nodes.items() if node.op == RESOURCE_HANDLE]
        with self._side.graph.as_default():
            return {
                name: tf.raw_ops.ReadVariableOp(
                    resource=operation.outputs[0], dtype=operation.get_attr("dtype")
                ).name
                for name in handles
                for operation in [self._side.graph.get_operation_by_name(name)]
            }

    def traced(self) -> Traced:
        """What the search for a divergence asks for: a digest of every tensor that some node takes."""
        prints: dict[str, bytes] = {}
        dead = set()
        in_loops = ((tensor, self.value(tensor)) for tensor in self.record.watched)
        for tensor, value in itertools.chain(self.values(self._wanted()), in_loops):
            if value is None:
                dead.add(tensor)
            else:
                prints[tensor] = _print_of(value)
        nodes = as_traced(self.nodes, self._frames)
        opaque = exits_of(self.nodes, self._frames, self._hidden)
        return Traced(
            nodes=nodes,
            prints=prints,
            dead=dead,
            output=self.output,
            fed=self.fed,
            opaque=opaque,
        )

    def values(self, tensors: Sequence[str]) -> Iterator[tuple[str, Array | None]]:
        """Tensors outside of loops with their values; None for one that has none (a branch not taken)."""
        count, start = _FIRST_BATCH, 0
        while start < len(tensors):
            batch = tensors[start : start + count]
            start += count
            size = 0
            for tensor, value in zip(batch, self._fetched(batch), strict=True):
                size += 0 if value is None else value.nbytes
                yield tensor, value
            count = max(1, count // 2) if size > _MOST_BYTES else count * 2

    def value(self, tensor: str) -> Array | None:
        """The value of one tensor; in a loop, in the round that `look_at` chose."""
        path = self._frames.get(node_of(tensor))
        if path is None:
            return self._fetched([tensor])[0]
        return self.record.seen.get(tensor, {}).get(self._rounds.get(path, ()))

    @functools.cached_property
    def record(self) -> Record:
        """What tensors in loops held, round by round."""
        tensors = [t for t in self._taken() if node_of(t) in self._frames and self._has_value(t)]
        clocks = {t: self._clocks.get(self._frames[node_of(t)], ()) for t in tensors}
        wanted = {tensor: clock for tensor, clock in clocks.items() if clock}
        if not wanted:
            return Record(self._frames, {}, (), frozenset(), whole=True)
        recorder = Recorder(None if self._finishes else _SECONDS_FOR_ROUNDS)
        with self._side.graph.as_default():
            targets = [
                recorder.watch(
                    tensor,
                    full_name(tensor),
                    [full_name(t) for t in clock],
                    of_next=self.nodes[node_of(tensor)].op in BACK,
                )
                for tensor, clock in wanted.items()
            ]
        self.close()
        wanted_too = [full_name(self.output)] if self._finishes else []
        with contextlib.suppress(*RUN_ERRORS):
            self._run([*wanted_too, *targets])
        self.close()
        return Record(
            frames=self._frames,
            seen=recorder.seen,
            watched=tuple(wanted),
            leaving=leaving(self.nodes, self._frames, wanted),
            whole=recorder.whole and self._finishes,
        )

    def look_at(self, rounds: Mapping[Path, Round], unlike: Set[Path]) -> None:
        """From now on, tensors in loops have the values of these rounds.

        Args:
            rounds: Frames to the round.
            unlike: Frames in which some round is known to differ.
        """
        self._rounds = rounds
        self._hidden = {
            path
            for path in self._frames.values()
            if path not in self._clocks or not (self.record.whole or path in unlike)
        }

    def round_of(self, name: str) -> list[int] | None:
        """The round of its loops in which a node is looked at; None outside of loops."""
        path = self._frames.get(name)
        return None if path is None else list(self._rounds.get(path, ()))

    def unseen_because(self, name: str) -> str:
        """Why the values of a node cannot be looked at."""
        node = self.nodes[name]
        path = self._frames.get(node_of(node.inputs[0]) if node.op in EXITS else name)
        if path is None:
            return "it has no value that can be fetched"
        where = f"it is in the loop {'/'.join(path)}"
        if path not in self._clocks:
            return f"{where}, whose rounds cannot be counted: it has no LoopCond"
        if not self.record.whole:
            return f"{where}, of which only the first rounds could be kept"
        return f"{where}, and is not alive in a round that differs"

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _taken(self) -> list[str]:
        """Tensors that some node takes, or that differ."""
        taken = {tensor for node in self.nodes.values() for tensor in data_inputs(node)}
        return sorted(taken | {self.output})

    def _wanted(self) -> list[str]:
        return [
            tensor
            for tensor in self._taken()
            if node_of(tensor) not in self._frames and self._has_value(tensor)
        ] + sorted(self._reads)

    def _has_value(self, tensor: str) -> bool:
        if tensor in self._flows or node_of(tensor) in self._waiting:
            return False
        found = self._side.graph.get_tensor_by_name(full_name(tensor))
        return found.dtype.base_dtype not in _NO_VALUE

    def _fetched(self, tensors: Sequence[str]) -> list[Array | None]:
        """Values; halves the list until only those without one are left out."""
        try:
            names = [self._reads.get(tensor) or full_name(tensor) for tensor in tensors]
            results = self._run(names)
        except RUN_ERRORS:
            if len(tensors) == 1:
                return [None]
            half = len(tensors) // 2
            return [*self._fetched(tensors[:half]), *self._fetched(tensors[half:])]
        return [as_array(result) for result in results]

    def _run(self, names: Sequence[str]) -> list[Any]:
        if self._keeps_state or self._session is None:
            self.close()
            self._session = self._side.opened(exact_config())
            if self._keeps_state:
                self._side.answers(self._session, self._before, None)
        results: list[Any] = self._session.run(list(names), self.feeds)
        return results


class Pair(NamedTuple):
    """Both sides at one call."""

    original: Looker
    result: Looker


def _without_inputs(nodes: Mapping[str, Node], fed: Iterable[str]) -> dict[str, Node]:
    cut = set(fed)
    return {name: _cut(node, cut) for name, node in nodes.items()}


def _cut(node: Node, fed: set[str]) -> Node:
    """A node without its inputs if it is fed: what is in front of it does not run."""
    return node._replace(inputs=()) if node.name in fed else node


def _print_of(value: Array) -> bytes:
    """A digest of dtype, shape and bytes."""
    digest = hashlib.blake2b(repr((value.dtype, value.shape)).encode(), digest_size=16)
    if value.dtype.kind == "O":
        for item in value.ravel().tolist():
            data = item if isinstance(item, bytes) else str(item).encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    else:
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.digest()
