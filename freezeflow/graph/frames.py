"""The frames of TF1's loops, and whether they hang together: what TensorFlow finds out when it runs a graph.

Enter and Exit lead into a frame and out of it; all else must have its inputs in one frame. Source of the
rules: upstream ``core/graph/control_flow.cc`` (BuildControlFlowInfo).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from freezeflow.graph import attrs, walk
from freezeflow.graph.graph import Node, node_of

_ENTERS = frozenset({"Enter", "RefEnter"})
_EXITS = frozenset({"Exit", "RefExit"})
_BACK = frozenset({"NextIteration", "RefNextIteration"})
_MERGES = frozenset({"Merge", "RefMerge"})
_SWITCHES = frozenset({"Switch", "RefSwitch", "_SwitchN"})

# Names of frames, from the outermost on; empty outside of loops.
Path = tuple[str, ...]


def frames_of(nodes: Mapping[str, Node]) -> dict[str, Path]:
    """The frames that each node in a loop is in."""
    found: dict[str, Path] = {}
    for name in walk.inputs_first(nodes):
        node = nodes[name]
        path = max((found.get(node_of(tensor), ()) for tensor in node.inputs), key=len, default=())
        if node.op in _ENTERS:
            path = (*path, attrs.to_bytes(node.attrs["frame_name"]).decode())
        elif node.op in _EXITS:
            path = path[:-1]
        if path:
            found[name] = path
    return found


def frame_faults(nodes: Mapping[str, Node]) -> Iterator[tuple[str, str]]:
    """Nodes at which the loops of a body, the main graph's or a function's, do not hang together.

    Args:
        nodes: The nodes; inputs that none of them gives are a function's arguments.

    Yields:
        The first such node, and what is wrong with it.
    """
    if any(node.op in _ENTERS or node.op in _EXITS for node in nodes.values()):
        fault = _misplaced(nodes) or _endless(nodes)
        if fault is not None:
            yield fault


def _misplaced(nodes: Mapping[str, Node]) -> tuple[str, str] | None:
    """The first node that is in two frames at once, or leaves or enters one that is none."""
    users = walk.consumers(nodes)
    frames: dict[str, str] = {}  # node to the name of its frame, empty outside of loops
    around: dict[str, str] = {}  # frame to the one that it is entered from
    given: dict[str, tuple[str, str]] = {}  # node to the input it was reached by, and whose frame
    conditions: dict[str, str] = {}
    ready = deque(("", name) for name, node in nodes.items() if not node.inputs)
    ready += ((a, user) for a in sorted(users.keys() - nodes.keys()) for user in users[a])
    while ready:
        source, name = ready.popleft()
        node = nodes[name]
        outside = _frame_after(source, nodes, frames, around)
        if name in frames:
            before, other = given[name]
            if other != outside:
                return name, (
                    f"takes {before!r}, which is {_place(other)}, and {source!r}, which is"
                    f" {_place(outside)}"
                )
            continue
        given[name] = source, outside
        frame = frames[name] = outside
        if node.op in _ENTERS:
            frame = frames[name] = _named_frame(node)
            if not frame:
                return name, "enters a loop without a name"
            if around.setdefault(frame, outside) != outside:
                return name, (
                    f"enters the loop {frame!r} from where it is {_place(outside)}, another Enter"
                    f" from {_place(around[frame])}"
                )
        elif node.op in _EXITS and not frame:
            return name, "leaves a loop, but is in none"
        elif node.op == "LoopCond" and conditions.setdefault(frame, name) != name:
            first = conditions[frame]
            # As upstream has it: a loop may count its rounds with a condition of its own.
            if "LoopCounter" not in name and "LoopCounter" not in first:
                return name, f"is a second LoopCond of the loop {frame!r}, beside {first!r}"
        ready += ((name, user) for user in users.get(name, ()))
    return None


def _frame_after(
    source: str, nodes: Mapping[str, Node], frames: Mapping[str, str], around: Mapping[str, str]
) -> str:
    """The frame of what a node gives."""
    frame = frames.get(source, "")
    return around[frame] if source in nodes and nodes[source].op in _EXITS else frame


def _named_frame(enter: Node) -> str:
    named = enter.attrs.get("frame_name")
    return "" if named is None else attrs.to_bytes(named).decode(errors="replace")


def _place(frame: str) -> str:
    return f"in the loop {frame!r}" if frame else "outside of loops"


def _endless(nodes: Mapping[str, Node]) -> tuple[str, str] | None:
    """The first NextIteration that always goes on: no Switch lies before it in its loop."""
    heads = (node for node in nodes.values() if node.op in _MERGES)
    for head in heads:
        for tensor in head.inputs:
            back = nodes.get(node_of(tensor))
            if (
                back is not None
                and back.op in _BACK
                and _always_goes_on(nodes, back.name, head.name)
            ):
                return back.name, f"goes on for ever: no Switch lies between {head.name!r} and it"
    return None


def _always_goes_on(nodes: Mapping[str, Node], back: str, head: str) -> bool:
    """Whether a NextIteration gets what its Merge gives, and nothing on the way to it can be dead."""
    seen, stack = set(), [back]
    while stack:
        name = stack.pop()
        node = nodes.get(name)
        if name in seen or node is None or node.op in _ENTERS:
            continue
        if node.op in _SWITCHES:
            return False
        seen.add(name)
        stack += map(node_of, node.inputs)
    return head in seen
