"""Which ops do more than compute their outputs, and which control edges therefore matter.

TensorFlow marks an op as stateful when it may not be folded or deduplicated; that covers reading a
variable or drawing a random number, which nobody needs to wait for. Here an op *has an effect* when
leaving it out, though no output needs it, would change what a caller can see: it fails on purpose,
writes somewhere, or changes a table. An op that nobody defines counts as having an effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping

from freezeflow.graph.graph import Graph, Node, called_functions, control_inputs, node_of, waits
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.walk import reached_functions
from freezeflow.values import DType

# Stateful ops that only make or read something: without a reader they may go.
_QUIET_STATEFUL = re.compile(
    r"(VarHandleOp|_VarHandlesOp|Variable|VariableV2|AutoReloadVariable|TemporaryVariable"
    r"|ReadVariableOp|_ReadVariablesOp|ResourceGather|ResourceGatherNd|VariableShape"
    r"|VarIsInitializedOp|IsVariableInitialized|DestroyResourceOp|DisableCopyOnRead"
    r"|(Anonymous)?(Mutable)?(Dense)?HashTable(OfTensors)?(V2)?|LookupTable(Find|Size|Export)(V2)?"
    r"|Anonymous(Iterator|MultiDeviceIterator|MemoryCache|SeedGenerator|RandomSeedGenerator)(V\d)?"
    r"|(Experimental)?(?!DatasetTo|SaveDataset)\w*Dataset(V\d)?|DatasetToSingleElement"
    r"|Iterator(V2)?|OneShotIterator|Dummy(MemoryCache|SeedGenerator|IterationCounter)"
    r"|Random\w+|Multinomial|ParameterizedTruncatedNormal|TruncatedNormal|NonDeterministicInts"
    r"|Stateful(Standard|Truncated|Uniform|Random)\w*|StatelessRandomGetAlg|SampleDistorted\w+"
    r"|\w*CandidateSampler|CudnnRNN(V\d)?|TensorArray(V\d)?|TensorArray(Read|Write|Gather|Scatter"
    r"|Concat|Split|Size|Grad|GradWithShape)(V\d)?|Stack(V2)?|Empty|DeepCopy|GuaranteeConst"
    r"|GraphDefVersion|DeviceIndex|Timestamp|MutexV2|(Padding|Priority|Random\w*)?FIFOQueue(V2)?"
    r"|IsTensorFloat32Enabled|Placeholder\w*|_Arg|_Retval|IsResourceHandleRefCounting"
    r"|MakeWeakResourceHandle|RefIdentity|RefSelect|QueueSize|QueueIsClosed|StubResourceHandleOp|SleepIdentityOp|XlaCallModule|XlaLaunch(V2)?)$"
)

# Control flow by functions. TensorFlow spells it out in Switches and Merges where it can, before it
# leaves out what no output needs.
FUNCTIONAL = frozenset(
    ["If", "StatelessIf", "_If", "Case", "StatelessCase", "While", "StatelessWhile", "_While"]
)

# Marks a call that took the place of control flow, until it is inlined. TensorFlow spells control flow out
# before it leaves out what no output needs, also in the branch's body.
CHOSEN_ATTR = "_freezeflow_chosen"

# Ops that only call functions: what they do is what the functions do.
_CALLERS = FUNCTIONAL | {
    "PartitionedCall",
    "StatefulPartitionedCall",
    "RemoteCall",
    "BatchFunction",
    "MapDefun",
    "For",
    "SymbolicGradient",
}

# The ops of TF1 control flow: behind them a node may be dead, or belong to a loop's frame, and a
# control edge says so.
V1_CONTROL_FLOW = frozenset(
    f"{prefix}{op}"
    for prefix in ("", "Ref")
    for op in ("Switch", "Merge", "Enter", "Exit", "NextIteration")
) | {"LoopCond", "_SwitchN"}


# Stateful ops with a resource that change nothing of it, or only before the first call.
_ONLY_READ = frozenset(
    {
        "ReadVariableOp",
        "_ReadVariablesOp",
        "ResourceGather",
        "ResourceGatherNd",
        "VariableShape",
        "VarIsInitializedOp",
        "LookupTableFind",
        "LookupTableFindV2",
        "LookupTableSize",
        "LookupTableSizeV2",
        "LookupTableExport",
        "LookupTableExportV2",
        "InitializeTable",
        "InitializeTableV2",
        "InitializeTableFromTextFile",
        "InitializeTableFromTextFileV2",
    }
)


class Effects:
    """Answers, for one graph, which nodes have effects; functions are looked into once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._functions: dict[str, bool] = {}
        self._ops: dict[str, bool] = {}

    def node(self, node: Node) -> bool:
        """Whether the node itself has an effect."""
        if node.op in _CALLERS or node.op in self._graph.functions:
            names = [*called_functions(node), node.op]
            return any(self.function(name) for name in names if name in self._graph.functions)
        found = self._ops.get(node.op)
        if found is None:
            found = self._ops[node.op] = self._op(node.op)
        return found

    def _op(self, op: str) -> bool:
        """Whether the nodes of an op that calls nothing have an effect."""
        if op == "Assert":
            return True
        definition = self._graph.op_def(op)
        if definition is None:
            return True
        if op in V1_CONTROL_FLOW or _QUIET_STATEFUL.match(op):
            return False
        # TF1's ops on references are not marked as stateful, whatever they do with them.
        return definition.is_stateful or any(arg.is_ref for arg in definition.inputs)

    def function(self, name: str) -> bool:
        """Whether calling the function has an effect."""
        if name not in self._functions:
            self._functions[name] = False  # a recursive call adds nothing of its own
            body = self._graph.functions[name].nodes.values()
            self._functions[name] = any(map(self.node, body))
        return self._functions[name]


def awaited(nodes: Mapping[str, Node], has_effect: Callable[[Node], bool]) -> set[str]:
    """The nodes that are worth waiting for: with an effect or TF1 control flow at or before them."""
    return behind(
        nodes, {n.name for n in nodes.values() if n.op in V1_CONTROL_FLOW or has_effect(n)}
    )


def behind(nodes: Mapping[str, Node], sources: set[str]) -> set[str]:
    """Some nodes, and all that need them, by data or control."""
    marked = set(sources)
    if not marked:
        return marked
    consumers: dict[str, list[str]] = {}
    for node in nodes.values():
        for tensor in node.inputs:
            consumers.setdefault(node_of(tensor), []).append(node.name)
    stack = list(marked)
    while stack:
        for consumer in consumers.get(stack.pop(), ()):
            if consumer not in marked:
                marked.add(consumer)
                stack.append(consumer)
    return marked


def drop_idle_control(nodes: Mapping[str, Node], marked: set[str]) -> Mapping[str, Node]:
    """The nodes without those control inputs for which nobody needs to wait."""
    hasty = {}
    for name, node in nodes.items():
        if waits(node) and any(source not in marked for source in control_inputs(node)):
            inputs = tuple(i for i in node.inputs if not i.startswith("^") or i[1:] in marked)
            hasty[name] = node._replace(inputs=inputs)
    return {**nodes, **hasty} if hasty else nodes


def order_matters(
    graph: Graph,
    effects: Effects | None = None,
    *,
    called: Container[str],
    without: Container[str] = (),
) -> Callable[[Node], bool]:
    """Tells of a node whether someone may need to wait for it, by what it does itself.

    Where nothing changes any state, only effects count. As soon as a node changes a table or a
    variable, a node that reads one before it must not be overtaken: all that is stateful counts.

    Args:
        graph: The graph.
        effects: Of the nodes that will be asked about; by default the graph's own.
        called: Nodes of the main graph that run in a call; initializers run before.
        without: Ops that are about to be taken out, so that what they change does not count.
    """
    known = effects or Effects(graph)
    types = NodeTypes(graph)
    running = {name: node for name, node in graph.nodes.items() if name in called}
    reached = [graph.functions[name].nodes for name in reached_functions(graph, running.values())]
    nodes = (
        node for body in (running, *reached) for node in body.values() if node.op not in without
    )
    if not any(_may_change_state(graph, types, node) for node in nodes):
        return known.node

    def is_stateful(node: Node) -> bool:
        definition = types.definition(node.op)
        return definition is None or definition.is_stateful or known.node(node)

    return is_stateful


def _may_change_state(graph: Graph, types: NodeTypes, node: Node) -> bool:
    definition = types.definition(node.op)
    if definition is None:
        return True
    ends = types.ends(node)
    if ends.ref_inputs:
        return node.op not in V1_CONTROL_FLOW and node.op != "RefIdentity"
    if not definition.is_stateful or node.op in _ONLY_READ:
        return False
    if node.op in graph.functions or any(called_functions(node)):
        return False  # its functions are looked at themselves
    return ends.inputs is None or DType.RESOURCE in ends.inputs
