"""Lists of tensors of one shape as tensors of one dimension more, for targets without lists.

What TensorFlow calls a TensorArray is a list of tensors in a graph: Keras' recurrent layers and `map_fn`
carry such lists round their loops. Where the shape of the elements is known before the loop, in numbers or
as sizes of tensors that are there, a list of n of them is a tensor of shape (n, ...) that starts with
zeros, as unset elements of a list do, too; elements are set by slices and read by a gather. The numbers are
the same. What can change its length, and lists whose elements may have different shapes, stay lists.

Source of the ops' semantics: upstream ``core/kernels/list_kernels.{h,cc}``.
"""

from __future__ import annotations

import dataclasses
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.constants import const
from freezeflow.graph.foldable import Scope, held_scope
from freezeflow.graph.graph import (
    Graph,
    Node,
    control_inputs,
    data_inputs,
    join,
    node_of,
    split,
)
from freezeflow.graph.inline import MAX_INLINED_NODES
from freezeflow.graph.model import Model
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.shape_rules.infer import infer
from freezeflow.graph.shape_rules.known import Known, Rule, as_input
from freezeflow.graph.shapes import Dim, Dims, Shapes
from freezeflow.graph.walk import find_cycle, inputs_first, reached_functions, reached_nodes
from freezeflow.values import DType

_LOOPS = frozenset({"While", "StatelessWhile"})
_BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_FUNCTIONAL = _LOOPS | _BRANCHES

# Types whose zero has so many bytes, all of them zero.
_WIDTHS: Mapping[DType, int] = {
    **dict.fromkeys((DType.BOOL, DType.INT8, DType.UINT8), 1),
    **dict.fromkeys((DType.HALF, DType.BFLOAT16, DType.INT16, DType.UINT16), 2),
    **dict.fromkeys((DType.FLOAT, DType.INT32, DType.UINT32), 4),
    **dict.fromkeys((DType.DOUBLE, DType.INT64, DType.UINT64, DType.COMPLEX64), 8),
    DType.COMPLEX128: 16,
}

# Give lists that become longer or shorter, or whose elements have shapes of their own.
_RESIZING = frozenset(
    {
        "EmptyTensorList",
        "TensorListPopBack",
        "TensorListPushBack",
        "TensorListResize",
        "TensorListScatter",
        "TensorListScatterV2",
        "TensorListSplit",
    }
)

# Marks sizes of tensors outside of a function, in that function; no node's name begins so.
_OUTSIDE = "/"

_MAIN = ""

# Hand on the list that they take.
_PASSING = frozenset({"Identity", "TensorListSetItem"})


class Kept(NamedTuple):
    """Why lists stay lists.

    Args:
        path: The node that it is about, through the function that holds it.
        reason: In words.
    """

    path: str
    reason: str


# How an element is set: what is before it, the element, and what is behind it put together; or in place, by
# XlaDynamicUpdateSlice, for which TensorFlow itself has no kernel.
Setting = Literal["join", "slice"]


def stacked(model: Model, setting: Setting = "join") -> tuple[Model, Kept | None]:
    """The model with tensors in place of its lists; names of nodes stay.

    Args:
        model: A frozen model with one signature, whose outputs are nodes of their own.
        setting: How an element is set.

    Returns:
        The model, and nothing; or the model as it was, and why its lists stay.
    """
    bodies = [model.graph.nodes]
    bodies += [
        model.graph.functions[name].nodes
        for name in reached_functions(model.graph, model.graph.nodes.values())
    ]
    if not any(
        node.op in _LIST_OPS or node.op in _RESIZING for nodes in bodies for node in nodes.values()
    ):
        return model, None
    try:
        graph = _Stacking(_with_own_functions(model.graph), model, setting).graph()
    except _KeptError as error:
        return model, error.kept
    return canonical(dataclasses.replace(model, graph=graph)), None


class _KeptError(Exception):
    def __init__(self, scope: str, node: str, reason: str) -> None:
        super().__init__(reason)
        self.kept = Kept(f"{scope}/{node}" if scope else node, reason)


# ---------------------------------------------------------------- functions of their own


def _with_own_functions(graph: Graph) -> Graph:
    """The graph in which each loop and branch has functions that no other calls, of what they give.

    Raises:
        _KeptError: Functions that call each other several times would come to too many nodes.
    """
    functions = dict(graph.functions)
    numbers = itertools.count(1)
    met: set[str] = set()
    copies = 0

    def copied(name: str) -> str:
        nonlocal copies
        own = name
        while own in met or (own != name and own in functions):
            own = f"{name}_{next(numbers)}"
        met.add(own)
        function = graph.functions[name]
        ends = [result.tensor for result in function.results]
        ends += [result.node for result in function.control_results]
        needed = reached_nodes(function.nodes, ends)
        copies += len(needed)
        if copies > MAX_INLINED_NODES:
            raise _KeptError(name, min(needed, default=""), "the functions around it are too many")
        nodes = {each: opened(node) for each, node in function.nodes.items() if each in needed}
        functions[own] = dataclasses.replace(function, name=own, nodes=nodes)
        return own

    def opened(node: Node) -> Node:
        if node.op not in _FUNCTIONAL:
            return node
        return node._replace(attrs={**node.attrs, **dict(_called(node, copied))})

    nodes = {name: opened(node) for name, node in graph.nodes.items()}
    return dataclasses.replace(graph, nodes=nodes, functions=functions)


def _called(node: Node, name_of: Callable[[str], str]) -> Iterator[tuple[str, bytes]]:
    """A functional node's attributes that name functions, with other names."""
    for key in sorted(node.attrs):
        if key == "branches":
            named = attrs.to_functions(node.attrs[key])
            yield key, attrs.of_functions((name_of(name), bound) for name, bound in named)
        elif attrs.kind(node.attrs[key]) == "func":
            name, bound = attrs.to_function(node.attrs[key])
            yield key, attrs.of_function(name_of(name), bound)


def _sides(node: Node) -> list[str]:
    """The functions of a branch."""
    if "branches" in node.attrs:
        return [name for name, _ in attrs.to_functions(node.attrs["branches"])]
    return [attrs.to_function(node.attrs[key])[0] for key in ("then_branch", "else_branch")]


# ---------------------------------------------------------------- sizes


class _Sizes:
    """The shapes of all tensors, of a list that of the tensor that it becomes.

    Args:
        graph: The graph, each of whose functions is called once.
        model: The model that it belongs to.

    Raises:
        _KeptError: What is set into a list may have another shape than the others.
    """

    def __init__(self, graph: Graph, model: Model) -> None:
        self._graph = graph
        self._types = NodeTypes(graph)
        self._bodies: dict[str, Body] = {}
        ((_, signature),) = model.signatures.items()
        self._wanted = frozenset(spec.tensor for spec in signature.outputs.values())
        # Scope, and the node that begins a list or the argument that brings it, to what is set into it.
        self._items: dict[tuple[str, str], tuple[Dim, ...]] = {}
        self._args: dict[str, Mapping[str, Dims]] = {}
        self.shapes: dict[str, Shapes] = {}
        self._infer(_MAIN, {})
        for scope, shapes in self.shapes.items():
            for node in self._body(scope).nodes.values():
                if node.op == "TensorListSetItem":
                    self._check(scope, node, shapes)

    def element(self, scope: str, node: Node, shapes: Shapes) -> tuple[Dim, ...] | None:
        """The shape of the elements of a list that begins with this node; None where it is not known."""
        found = self._items.get((scope, node.name))
        told = self._body(scope).integers(node.inputs[0]) or shapes.value(node.inputs[0])
        if told is None or shapes.of(node.inputs[0]) == ():
            return found
        sizes: list[Dim] = []
        for axis, size in enumerate(told):
            if isinstance(size, int) and size < 0:
                if found is None or len(found) != len(told):
                    return None
                size = found[axis]
            sizes.append(size)
        return tuple(sizes)

    def size_within(self, scope: str, size: tuple[str, int]) -> tuple[str, int] | None:
        """A size in terms of the scope's own tensors; None where there is none that has it."""
        if not size[0].startswith(_OUTSIDE):
            return size
        for arg, shape in self._args[scope].items():
            for axis, each in enumerate(shape or ()):
                if each == size:
                    return arg, axis
        return None

    def dtype(self, scope: str, tensor: str) -> DType | None:
        """The type of a scope's tensor."""
        if scope:
            for arg in self._graph.functions[scope].args:
                if arg.name == tensor:
                    return arg.dtype
        return self._body(scope).dtype(tensor)

    def _body(self, scope: str) -> Body:
        if scope not in self._bodies:
            held = (
                held_scope(self._graph.functions[scope])
                if scope
                else Scope(self._graph.nodes, self._wanted)
            )
            self._bodies[scope] = Body(self._graph, held, self._types)
        return self._bodies[scope]

    def _infer(self, scope: str, args: Mapping[str, Dims]) -> Shapes:
        """Goes through a scope until no list is met whose elements were not known before."""
        self._args[scope] = args
        while True:
            before = len(self._items)
            shapes = infer(self._body(scope), args, self._rules(scope))
            if len(self._items) == before:
                self.shapes[scope] = shapes
                return shapes

    def _rules(self, scope: str) -> Mapping[str, Rule]:
        def reserved(known: Known, node: Node) -> Sequence[Dims]:
            element = self.element(scope, node, known.shapes)
            length = known.shapes.value(node.inputs[1]) or ((node.name, 0),)
            return (None if element is None else (*length, *element),)

        def item_set(known: Known, node: Node) -> Sequence[Dims]:
            item = known.of(node, 2)
            if item is not None:
                self._note(scope, node.inputs[0], item)
            return (known.of(node, 0),)

        def item_got(known: Known, node: Node) -> Sequence[Dims]:
            told = self._told(scope, node)
            held = known.of(node, 0)
            return (held[1:] if held else told,)

        def items_got(known: Known, node: Node) -> Sequence[Dims]:
            told = self._told(scope, node)
            held, places = known.of(node, 0), known.of(node, 1)
            item = held[1:] if held else told
            return (None if places is None or item is None else (*places, *item),)

        def read(known: Known, node: Node) -> Sequence[Dims]:
            self._told(scope, node)
            return (known.of(node, 0),)

        def looped(known: Known, node: Node) -> Sequence[Dims]:
            return self._loop(scope, known, node)

        def branched(known: Known, node: Node) -> Sequence[Dims]:
            return self._branch(scope, known, node)

        return {
            "TensorListReserve": reserved,
            "TensorListSetItem": item_set,
            "TensorListGather": items_got,
            "TensorListGetItem": item_got,
            "TensorListFromTensor": as_input(0),
            "TensorListStack": read,
            **dict.fromkeys(_LOOPS, looped),
            **dict.fromkeys(_BRANCHES, branched),
        }

    def _note(self, scope: str, tensor: str, item: tuple[Dim, ...]) -> None:
        """Remembers the shape of what is set into a list, where the list begins."""
        nodes = self._body(scope).nodes
        while True:
            name, index = split(tensor)
            node = nodes.get(name)
            if node is not None and node.op in _PASSING:
                tensor = node.inputs[0]
            elif node is not None and node.op in _LOOPS:
                tensor = node.inputs[index]
            else:
                break
        if node is None or node.op == "TensorListReserve":
            self._items.setdefault((scope, name), item)

    def _told(self, scope: str, node: Node) -> Dims:
        """The shape that the reader of a list asks for, where that leaves nothing open."""
        place = 1 if node.op == "TensorListStack" else 2
        source = self._body(scope).source(node.inputs[place])
        told = self._body(scope).integers(node.inputs[place])
        if told is None or source is None or any(size < 0 for size in told):
            return None
        if not attrs.message(source.attrs["value"]).tensor.tensor_shape.dim:
            return None
        self._note(scope, node.inputs[0], told)
        return told

    def _note_within(self, scope: str, inner: str, tensors: Sequence[str]) -> None:
        """Remembers what a function sets into the lists that it is given."""
        for arg, tensor in zip(self._graph.functions[inner].args, tensors, strict=True):
            item = self._items.get((inner, arg.name))
            if item is not None and all(map(_is_outside, item)):
                self._note(scope, tensor, tuple(map(_outwards, item)))

    def _check(self, scope: str, node: Node, shapes: Shapes) -> None:
        held, item = shapes.of(node.inputs[0]), shapes.of(node.inputs[2])
        if held is None or item is None:
            return  # what begins the list tells, or asks for, its elements' shape
        if len(held) != len(item) + 1 or any(
            one != other and not (isinstance(one, int) and not isinstance(other, int))
            for one, other in zip(held[1:], item, strict=True)
        ):
            raise _KeptError(scope, node.name, "what is set may have another shape than the rest")

    def _loop(self, scope: str, known: Known, node: Node) -> Sequence[Dims]:
        """What is the same in every round, begun with what comes into the first one."""
        condition, step = (attrs.to_function(node.attrs[key])[0] for key in ("cond", "body"))
        function, tensors = self._graph.functions[step], list(data_inputs(node))
        names = [arg.name for arg in function.args]
        args = dict(zip(names, map(_inwards, map(known.shapes.of, tensors)), strict=True))
        while True:
            shapes = self._infer(step, args)
            given = [shapes.of(result.tensor) for result in function.results]
            again = {
                name: _alike(name, shape, result)
                for (name, shape), result in zip(args.items(), given, strict=True)
            }
            if again == args:
                break
            args = again
        tests = [arg.name for arg in self._graph.functions[condition].args]
        self._infer(condition, dict(zip(tests, args.values(), strict=True)))
        self._note_within(scope, step, tensors)
        return [_seen(join(node.name, n), shape) for n, shape in enumerate(args.values())]

    def _branch(self, scope: str, known: Known, node: Node) -> Sequence[Dims]:
        """What all sides give."""
        tensors = list(data_inputs(node))[1:]
        found = []
        for side in _sides(node):
            function = self._graph.functions[side]
            names = [arg.name for arg in function.args]
            args = dict(zip(names, map(_inwards, map(known.shapes.of, tensors)), strict=True))
            shapes = self._infer(side, args)
            self._note_within(scope, side, tensors)
            found.append([shapes.of(result.tensor) for result in function.results])
        results = []
        for index, (first, *rest) in enumerate(zip(*found, strict=True)):
            for other in rest:
                first = _alike("", first, other)
            results.append(_seen(join(node.name, index), first))
        return results


def _inwards(shape: Dims) -> Dims:
    """A shape as a function sees it that is given a tensor of it."""
    if shape is None:
        return None
    return tuple(size if isinstance(size, int) else (_OUTSIDE + size[0], size[1]) for size in shape)


def _is_outside(size: Dim) -> bool:
    return isinstance(size, int) or size[0].startswith(_OUTSIDE)


def _outwards(size: Dim) -> Dim:
    return size if isinstance(size, int) else (size[0].removeprefix(_OUTSIDE), size[1])


def _seen(tensor: str, shape: Dims) -> Dims:
    """A shape in a function as it is seen outside of it, of the tensor that the node gives."""
    if shape is None:
        return None
    return tuple(
        _outwards(size) if _is_outside(size) else (tensor, axis) for axis, size in enumerate(shape)
    )


def _alike(name: str, one: Dims, other: Dims) -> Dims:
    """What two shapes have in common; sizes that differ are those of the tensor `name`."""
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(
        a if a == b else (name, axis) for axis, (a, b) in enumerate(zip(one, other, strict=True))
    )


# ---------------------------------------------------------------- nodes


class _Stacking:
    """Goes through the scopes, main graph first, and writes tensors where lists are.

    Args:
        graph: The graph, each of whose functions is called once.
        model: The model that it belongs to.
        setting: How an element is set.
    """

    def __init__(self, graph: Graph, model: Model, setting: Setting) -> None:
        self._given = graph
        self._setting = setting
        self._sizes = _Sizes(graph, model)
        self._functions = dict(graph.functions)

    def graph(self) -> Graph:
        """The graph without lists.

        Raises:
            _KeptError: It cannot be without one of them.
        """
        nodes, _ = self._scope(_MAIN, self._given.nodes, {})
        return dataclasses.replace(self._given, nodes=nodes, functions=self._functions)

    def _function(self, name: str, types: Sequence[DType | None]) -> list[DType | None]:
        """Writes a function that is given lists of these types; the types of those that it gives."""
        function = self._given.functions[name]
        args = zip(function.args, types, strict=True)
        changed = [arg if kind is None else arg._replace(dtype=kind) for arg, kind in args]
        lists = {
            arg.name: kind
            for arg, kind in zip(function.args, types, strict=True)
            if kind is not None
        }
        nodes, lists = self._scope(name, function.nodes, lists)
        given = [lists.get(result.tensor) for result in function.results]
        results = [
            result if kind is None else result._replace(dtype=kind)
            for result, kind in zip(function.results, given, strict=True)
        ]
        self._functions[name] = dataclasses.replace(
            function, args=tuple(changed), results=tuple(results), nodes=nodes
        )
        return given

    def _scope(
        self, scope: str, nodes: Mapping[str, Node], lists: Mapping[str, DType]
    ) -> tuple[dict[str, Node], dict[str, DType]]:
        """A scope's nodes, and the element types of its lists by tensor.

        Args:
            scope: Which one.
            nodes: Its nodes.
            lists: Arguments that are lists, with the types of their elements.
        """
        made: dict[str, Node] = {}
        known = dict(lists)
        writer = _Writer(scope, {*nodes, *known}, self._sizes, known, self._setting)
        for name in inputs_first(nodes):
            node = nodes[name]
            if node.op in _FUNCTIONAL:
                written: Iterable[Node] = (self._called(node, known),)
            elif node.op in _LIST_OPS:
                known |= _begun(node)
                written = _LIST_OPS[node.op](writer, node)
            elif node.op == "Identity" and node.inputs[0] in known:
                known[name] = known[node.inputs[0]]
                written = (node._replace(attrs={"T": attrs.of_type(known[name])}),)
            else:
                if any(tensor in known for tensor in data_inputs(node)) or node.op in _RESIZING:
                    raise _KeptError(scope, name, f"{node.op} works on it")
                written = (node,)
            made |= {each.name: each for each in written}
        if cycle := find_cycle(made):
            raise _KeptError(scope, cycle[0], "the sizes of its elements follow from itself")
        return made, known

    def _called(self, node: Node, lists: dict[str, DType]) -> Node:
        """A loop or branch with the types that it has now; notes the lists that it gives."""
        given = [lists.get(tensor) for tensor in data_inputs(node)]
        if node.op in _LOOPS:
            results: list[DType | None] = given
            for key in ("cond", "body"):
                self._function(attrs.to_function(node.attrs[key])[0], given)
            keys = {"T": given}
        else:
            sides = [self._function(side, given[1:]) for side in _sides(node)]
            results = sides[0]
            keys = {"Tin": given[1:], "Tout": results}
        lists |= {join(node.name, n): kind for n, kind in enumerate(results) if kind is not None}
        types = {
            key: attrs.of_types(
                old if new is None else new
                for old, new in zip(attrs.to_types(node.attrs[key]), kinds, strict=True)
            )
            for key, kinds in keys.items()
        }
        kept = {key: value for key, value in node.attrs.items() if key != "output_shapes"}
        return node._replace(attrs={**kept, **types})


def _begun(node: Node) -> dict[str, DType]:
    """The list that a node gives, if it gives one."""
    if node.op in ("TensorListReserve", "TensorListFromTensor", "TensorListSetItem"):
        return {node.name: attrs.to_type(node.attrs["element_dtype"])}
    return {}


class _Writer:
    """Writes the nodes of one scope that take the place of lists' own.

    Args:
        scope: Which one.
        taken: Names that are not free.
        sizes: The shapes of all tensors.
        lists: The lists that were met so far, with the types of their elements.
        setting: How an element is set.
    """

    def __init__(
        self,
        scope: str,
        taken: set[str],
        sizes: _Sizes,
        lists: Mapping[str, DType],
        setting: Setting,
    ) -> None:
        self._setting = setting
        self._scope = scope
        self._taken = taken
        self._sizes = sizes
        self._lists = lists

    def reserved(self, node: Node) -> Iterator[Node]:
        """Zeros."""
        shapes = self._sizes.shapes[self._scope]
        element = self._sizes.element(self._scope, node, shapes)
        dtype = attrs.to_type(node.attrs["element_dtype"])
        if element is None:
            raise _KeptError(self._scope, node.name, "the shape of its elements is not known")
        if dtype not in _WIDTHS:
            raise _KeptError(self._scope, node.name, f"its elements are {dtype.tf_name}")
        sizes = [list(data_inputs(node))[1]]
        for axis, size in enumerate(element):
            name = self._free(f"{node.name}/size_{axis}")
            if isinstance(size, int):
                yield const(name, DType.INT32, (), struct.pack("<i", size))
            else:
                within = self._sizes.size_within(self._scope, size)
                if within is None:
                    raise _KeptError(
                        self._scope, node.name, "the shape of its elements is not known"
                    )
                tensor, place = within
                yield from self._size(name, tensor, place)
            sizes.append(name)
        whole, zero = self._free(f"{node.name}/shape"), self._free(f"{node.name}/zero")
        yield _packed(whole, tuple(sizes))
        yield const(zero, dtype, (), bytes(_WIDTHS[dtype]))
        values = {"T": attrs.of_type(dtype), "index_type": _INT32}
        yield Node(node.name, "Fill", (whole, zero, *_waits(node)), values)

    def item_set(self, node: Node) -> Iterator[Node]:
        if (
            "resize_if_index_out_of_bounds" in node.attrs
            and attrs.message(node.attrs["resize_if_index_out_of_bounds"]).b
        ):
            raise _KeptError(self._scope, node.name, "its length may change")
        held, place, item = data_inputs(node)
        shape = self._sizes.shapes[self._scope].of(held)
        if shape is None:
            raise _KeptError(self._scope, node.name, "the rank of its elements is not known")
        kind, first = {"T": node.attrs["element_dtype"]}, self._free(f"{node.name}/first")
        update = self._free(f"{node.name}/update")
        yield const(first, DType.INT32, (), struct.pack("<i", 0))
        yield Node(update, "ExpandDims", (item, first), {**kind, "Tdim": _INT32})
        others = len(shape) - 1
        if self._setting == "slice":
            begin = self._free(f"{node.name}/begin")
            yield _packed(begin, (place, *(first for _ in range(others))))
            inputs = (held, update, begin, *_waits(node))
            yield Node(node.name, "XlaDynamicUpdateSlice", inputs, {**kind, "Tindices": _INT32})
            return
        all_of, one, next_one = (self._free(f"{node.name}/{w}") for w in ("all", "one", "next"))
        yield const(all_of, DType.INT32, (), struct.pack("<i", -1))
        yield const(one, DType.INT32, (), struct.pack("<i", 1))
        yield Node(next_one, "AddV2", (place, one), {"T": _INT32})
        parts = []
        for word, begin, size in (("before", first, place), ("behind", next_one, all_of)):
            ends = self._free(f"{node.name}/{word}/begin"), self._free(f"{node.name}/{word}/size")
            yield _packed(ends[0], (begin, *(first for _ in range(others))))
            yield _packed(ends[1], (size, *(all_of for _ in range(others))))
            parts.append(self._free(f"{node.name}/{word}"))
            yield Node(parts[-1], "Slice", (held, *ends), {**kind, "Index": _INT32})
        joined = (parts[0], update, parts[1], first, *_waits(node))
        values = {**kind, "Tidx": _INT32, "N": attrs.of_int(3)}
        yield Node(node.name, "ConcatV2", joined, values)

    def gathered(self, node: Node) -> Iterator[Node]:
        """One element by its place, or several by theirs."""
        held, places, _ = data_inputs(node)
        axis = self._free(f"{node.name}/axis")
        yield const(axis, DType.INT32, (), struct.pack("<i", 0))
        values = {
            "Tparams": node.attrs["element_dtype"],
            "Tindices": _INT32,
            "Taxis": _INT32,
            "batch_dims": attrs.of_int(0),
        }
        yield Node(node.name, "GatherV2", (held, places, axis, *_waits(node)), values)

    def whole(self, node: Node) -> Iterator[Node]:
        """A list made of a tensor, and a tensor made of a list."""
        given, *_ = data_inputs(node)
        kind = {"T": node.attrs["element_dtype"]}
        yield Node(node.name, "Identity", (given, *_waits(node)), kind)

    def length(self, node: Node) -> Iterator[Node]:
        yield from self._size(node.name, node.inputs[0], 0, _waits(node))

    def _size(
        self, name: str, tensor: str, axis: int, waits: tuple[str, ...] = ()
    ) -> Iterator[Node]:
        """A tensor's size along an axis, as a scalar of that name."""
        dtype = self._lists.get(tensor) or self._sizes.dtype(self._scope, tensor)
        if dtype is None:
            raise _KeptError(self._scope, node_of(tensor), "the type of it is not known")
        shape = self._free(f"{name}/shape")
        yield Node(shape, "Shape", (tensor,), {"T": attrs.of_type(dtype), "out_type": _INT32})
        ends = []
        for word, number in (("begin", axis), ("end", axis + 1), ("stride", 1)):
            ends.append(self._free(f"{name}/{word}"))
            yield const(ends[-1], DType.INT32, (1,), struct.pack("<i", number))
        masks = ("begin_mask", "ellipsis_mask", "end_mask", "new_axis_mask")
        values = {
            "Index": _INT32,
            "T": _INT32,
            "shrink_axis_mask": attrs.of_int(1),
            **dict.fromkeys(masks, attrs.of_int(0)),
        }
        yield Node(name, "StridedSlice", (shape, *ends, *waits), values)

    def _free(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _packed(name: str, sizes: tuple[str, ...]) -> Node:
    """Scalars as a vector."""
    values = {"T": _INT32, "N": attrs.of_int(len(sizes)), "axis": attrs.of_int(0)}
    return Node(name, "Pack", sizes, values)


def _waits(node: Node) -> tuple[str, ...]:
    return tuple(f"^{name}" for name in control_inputs(node))


_INT32 = attrs.of_type(DType.INT32)

_LIST_OPS: Mapping[str, Callable[[_Writer, Node], Iterator[Node]]] = {
    "TensorListReserve": _Writer.reserved,
    "TensorListFromTensor": _Writer.whole,
    "TensorListSetItem": _Writer.item_set,
    "TensorListGetItem": _Writer.gathered,
    "TensorListGather": _Writer.gathered,
    "TensorListStack": _Writer.whole,
    "TensorListLength": _Writer.length,
}
