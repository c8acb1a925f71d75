"""Equations with an ellipsis: written out where sizes tell what it stands for."""

import pytest
import tensorflow as tf

from freezeflow.graph import attrs
from freezeflow.graph.spelled_out import spelled_out
from freezeflow.graph.verify import verify
from freezeflow.graph.write import graph_def_bytes
from freezeflow.values import DType
from tests.graphs import graph, model, node, placeholder, spec


def made(equation, *shapes):
    names = "ab"[: len(shapes)]
    ends = dict(zip(names, shapes, strict=True))
    whole = graph(
        *(placeholder(name, shape=shape) for name, shape in ends.items()),
        node("e", "Einsum", *names, equation=equation, N=len(shapes), T=DType.FLOAT),
        node("y", "Identity", "e", T=DType.FLOAT),
    )
    inputs = {name: spec(name, shape=shape) for name, shape in ends.items()}
    return model(whole, inputs, {"y": spec("y", shape=None)})


def written(given):
    found = spelled_out(given, frozenset(["Einsum"]))
    assert verify(found) == ()
    return found, attrs.to_bytes(found.graph.nodes["e"].attrs["equation"]).decode()


@pytest.mark.parametrize(
    ("equation", "shapes", "wanted"),
    [
        ("...ij,jk->...ik", [(2, 5, 3), (3, 4)], "aij,jk->aik"),
        ("...ij,jk->...ik", [(None, 5, 3), (3, 4)], "aij,jk->aik"),
        ("a...b,cb->...ac", [(2, 5, 6, 3), (4, 3)], "adeb,cb->deac"),
        ("...ij,...jk->...ik", [(2, 5, 3), (2, 3, 4)], "aij,ajk->aik"),
        ("...ij,...jk->...ik", [(2, 5, 3), (1, 3, 4)], "aij,jk->aik"),
        ("...ij,...jk->...ik", [(6, 1, 5, 3), (2, 3, 4)], "aij,bjk->abik"),
        ("...ij,...jk->...ik", [(1, 5, 3), (None, 3, 4)], "ij,ajk->aik"),
        ("...ij,...jk->...ik", [(1, 5, 3), (1, 3, 4)], "aij,ajk->aik"),
        ("...ij,jk->...ik", [(5, 3), (3, 4)], "ij,jk->ik"),
        ("i...->...", [(3, 2, 4)], "iab->ab"),
        ("...ij->...ji", [(2, 5, 3)], "aij->aji"),
    ],
)
def test_an_ellipsis_gets_letters_and_means_the_same(equation, shapes, wanted):
    given = made(equation, *shapes)
    found, text = written(given)
    assert text == wanted
    sizes = [[7 if size is None else size for size in shape] for shape in shapes]
    inputs = [tf.random.stateless_uniform(shape, [1, number]) for number, shape in enumerate(sizes)]
    feeds = dict(zip(("a:0", "b:0"), (value.numpy() for value in inputs), strict=False))
    answers = []
    for each in (given, found):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            definition = tf.compat.v1.GraphDef.FromString(graph_def_bytes(each.graph))
            tf.import_graph_def(definition, name="")
            answers.append(session.run("y:0", feeds))
    assert answers[0].shape == answers[1].shape
    assert answers[1] == pytest.approx(answers[0], rel=1e-6)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(5, 3), (3, 4)]),
        ("...ij,...jk->...ik", [(None, 5, 3), (None, 3, 4)]),
        ("...ij,...jk->...ik", [(2, 5, 3), (None, 3, 4)]),
        ("...ij,jk->...ik", [None, (3, 4)]),
        ("...ij,jk", [(2, 5, 3), (3, 4)]),
        ("...i->i", [(2, 5)]),
    ],
)
def test_equations_that_stay(equation, shapes):
    assert written(made(equation, *shapes))[1] == equation


def test_what_comes_out_of_one_is_known_for_the_next():
    whole = graph(
        placeholder("x", shape=(2, 5, 3)),
        node("d", "Einsum", "x", equation="...ij->...ji", N=1, T=DType.FLOAT),
        node("e", "Einsum", "d", "d", equation="...ij,...ik->...jk", N=2, T=DType.FLOAT),
        node("y", "Identity", "e", T=DType.FLOAT),
    )
    given = model(whole, {"x": spec("x", shape=(2, 5, 3))}, {"y": spec("y", shape=None)})
    assert written(given)[1] == "aij,aik->ajk"
