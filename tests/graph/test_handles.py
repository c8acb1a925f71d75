"""One handle of several, and nodes that stand in for reads."""

from __future__ import annotations

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.handles import READS, Handle, meet, scalar_const
from freezeflow.values import DType
from tests.graphs import node

F = DType.FLOAT


def test_handles_that_meet_may_be_any_of_them():
    a, b = Handle(F, (2, 3), ("a",)), Handle(F, (2, 4), ("b",))
    assert meet([b, a], "here") == Handle(F, (2, None), ("a", "b"))


@pytest.mark.parametrize("other", [None, (2,)])
def test_shapes_of_another_rank(other):
    assert meet([Handle(F, (2, 3), ("a",)), Handle(F, other, ("b",))], "here").shape is None


def test_handles_of_two_dtypes():
    with pytest.raises(ModelRefused) as refused:
        meet([Handle(F, (), ("a",)), Handle(DType.INT32, (), ("b",))], "here")
    assert refused.value.where == "here"


def test_batch_dims_become_the_axis():
    gather = node(
        "g", "ResourceGather", "v", "i", "^c", Tindices=DType.INT32, dtype=F, batch_dims=2
    )
    axis, new = READS["ResourceGather"](gather, Handle(F, None, ("v",)), False).nodes
    assert new.inputs == ("v", "i", "g/axis", "^c")
    assert attrs.to_int(new.attrs["batch_dims"]) == 2
    assert attrs.message(axis.attrs["value"]).tensor.int_val == [2]


def test_in_a_loop_a_new_constant_is_in_the_same_frame():
    gather = node("g", "ResourceGather", "v", "i:1", Tindices=DType.INT32, dtype=F)
    axis, _ = READS["ResourceGather"](gather, Handle(F, None, ("v",)), True).nodes
    assert axis.inputs == ("^i",)


def test_several_variables_in_one_read():
    read = node("r", "_ReadVariablesOp", "a", "b", "^c", N=2, dtypes=(F, DType.INT32))
    made = READS["_ReadVariablesOp"](read, Handle(F, None, ("a",)), False)
    assert made.outputs == ("r/0", "r/1")
    assert [n.inputs for n in made.nodes] == [("a", "^c"), ("b", "^c")]


@pytest.mark.parametrize(("value", "field"), [(3, "int_val"), (True, "bool_val")])
def test_scalars(value, field):
    tensor = attrs.message(scalar_const("s", value, after=None).attrs["value"]).tensor
    assert list(getattr(tensor, field)) == [value]
    assert not tensor.tensor_shape.dim
