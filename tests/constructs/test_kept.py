"""Variables that stay alive because an output sees their writes (``written: keep``)."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.engine.context import StepContext
from freezeflow.errors import ModelRefused
from freezeflow.stages import export, fold
from freezeflow.stages.stage import StageInput
from tests.constructs import harness, tf1_models, tf2_models
from tests.constructs.test_tf1 import build as build_tf1
from tests.constructs.test_tf2 import save
from tests.constructs.tf1_models import X, variable
from tests.constructs.tf2_models import spec, weight

v1 = tf.compat.v1

CALLS = 3
FEEDS = {"x": X}


def counter(m, x):
    m.count.assign_add(1.0)
    return {"y": x * m.w + m.count}


def written_from_one_another(m, x):
    m.count.assign_add(m.other + 1.0)
    m.other.assign(m.count * 2.0)
    return {"y": x * m.w + m.count}


def written_before_it_is_read(m, x):
    """What is assigned in each call before anyone reads it need not live on."""
    m.count.assign(m.other + 1.0)
    m.other.assign(m.count * 2.0)
    return {"y": x * m.w + m.count}


def read_before_and_after(m, x):
    before = m.count.read_value()
    m.count.assign_add(1.0)
    between = m.count.read_value()
    m.count.assign(m.count * 2.0)
    return {"before": before + x, "between": between + x, "after": m.count + x}


def in_a_branch(m, x):
    return {"y": tf.cond(x[0, 0] > -9.0, lambda: x * m.count.assign_add(1.0), lambda: x * m.other)}


def in_a_loop(m, x):
    def body(i, y):
        m.count.assign(m.count * 1.5)
        return i + 1, y * m.count + m.w

    return {"y": tf.while_loop(lambda i, y: i < 3, body, (0, x))[1]}


def in_a_dataset(m, x):
    rows = tf.data.Dataset.from_tensor_slices(x).map(lambda row: row + m.count.assign_add(1.0))
    return {"y": rows.reduce(tf.zeros([3]), lambda total, row: total + row * m.w)}


def a_row_of_an_embedding(m, x):
    m.rows.scatter_add(tf.IndexedSlices(x, tf.constant([0, 2])))
    return {"y": tf.nn.embedding_lookup(m.rows, [0, 1, 2]) * m.w}


def random_numbers(m, x):
    return {"y": x * m.w + m.generator.normal([3])}


TF2 = [
    counter, written_from_one_another, written_before_it_is_read, read_before_and_after, in_a_branch,
    in_a_loop, in_a_dataset, a_row_of_an_embedding, random_numbers,
]  # fmt: skip


def exported(source, tmp_path):
    """The SavedModel of a model that is frozen but for what is written, and what it keeps."""
    context = StepContext(tmp_path, tmp_path, None, io.StringIO())
    model = harness.freeze_model(source, tmp_path, written="keep")
    model = fold.STAGE.run(StageInput(model=model, source=source), fold.Params(), context).model
    given = StageInput(model=model, source=source)
    export.STAGE.run(given, export.STAGE.params(to="kept", format="saved_model"), context)
    return tmp_path / "kept", set(model.variables)


def answers(path, loader):
    """What the first calls answer, one after the other."""
    if loader == "tf2":
        call = tf.saved_model.load(str(path)).signatures["serving_default"]
        fed = {key: tf.constant(value) for key, value in FEEDS.items()}
        return [{k: v.numpy() for k, v in call(**fed).items()} for _ in range(CALLS)]
    with tf.Graph().as_default(), v1.Session(config=harness.exact_config()) as session:
        ends = v1.saved_model.loader.load(session, ["serve"], str(path)).signature_def
        signature = ends["serving_default"]
        fetched = {key: info.name for key, info in signature.outputs.items()}
        fed = {signature.inputs[key].name: value for key, value in FEEDS.items()}
        return [session.run(fetched, fed) for _ in range(CALLS)]


def assert_same_answers(original, kept, loader):
    for want, have in zip(answers(original, loader), answers(kept, loader), strict=True):
        harness.assert_same(want, have)


@pytest.mark.parametrize("function", TF2, ids=lambda f: f.__name__)
def test_what_changes_goes_on_changing(function, tmp_path):
    model, serve = tf2_models.build(
        function,
        [spec([2, 3])],
        count=tf.Variable(1.0),
        other=tf.Variable(2.0),
        w=weight(3),
        rows=weight(5, 3),
        generator=tf.random.Generator.from_seed(1),
    )
    save(model, serve, tmp_path / "model")
    kept, variables = exported(harness.saved_model(tmp_path / "model"), tmp_path)
    assert len(variables) == (2 if function is written_from_one_another else 1)
    for loader in ("tf2", "tf1"):
        assert_same_answers(tmp_path / "model", kept, loader)


def tf1_in_order(resource):
    """Read, written, read again: only control edges tell in which order."""
    x = tf1_models.placeholder()
    count = v1.get_variable("count", [], initializer=v1.zeros_initializer(), use_resource=resource)
    before = tf.identity(count)
    with tf.control_dependencies([before]):
        written = v1.assign_add(count, 1.0)
    with tf.control_dependencies([written]):
        after = count.read_value()
    return {"x": x}, {"before": before + x, "after": after * variable("w", 3, resource=resource)}


def tf1_set_by_the_initializer(resource):
    """A local variable is in no checkpoint."""
    local = v1.Variable(
        5.0, collections=[v1.GraphKeys.LOCAL_VARIABLES], use_resource=resource, name="local"
    )
    x = tf1_models.placeholder()
    return {"x": x}, {"y": x + v1.assign_add(local, 1.0)}


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("make", [tf1_in_order, tf1_set_by_the_initializer])
def test_what_changes_in_tf1(make, resource, tmp_path):
    def write(session, inputs, outputs):
        init = v1.local_variables_initializer()
        session.run(init)
        v1.saved_model.simple_save(
            session, str(tmp_path / "model"), inputs, outputs, legacy_init_op=init
        )

    build_tf1(make, resource, write)
    kept, variables = exported(harness.saved_model(tmp_path / "model"), tmp_path)
    assert variables == ({"count"} if make is tf1_in_order else {"local"})
    assert_same_answers(tmp_path / "model", kept, "tf1")


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_an_initializer_that_changes_what_is_saved(resource, tmp_path):
    """Each start adds to the checkpoint's value, which so is not the one that answers."""
    path = tmp_path / "model"
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf1_models.placeholder()
        w = variable("w", 3, resource=resource)
        session.run(v1.global_variables_initializer())
        init = tf.group(v1.assign_add(w, [1.0, 2.0, 3.0]))
        v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": x * w}, legacy_init_op=init)
        saved = session.run(x * w, {x: FEEDS["x"]})
    with pytest.raises(ModelRefused, match="while the initializer runs"):
        harness.freeze_model(harness.saved_model(path), tmp_path)
    kept, variables = exported(harness.saved_model(path), tmp_path)
    assert variables == {"w"}
    assert_same_answers(path, kept, "tf1")
    dropped = harness.freeze_model(harness.saved_model(path), tmp_path, written="drop")
    harness.assert_same({"y": saved}, harness.run_frozen(dropped, "serving_default", FEEDS))


@pytest.fixture
def counting(tmp_path):
    model, serve = tf2_models.build(
        counter, [spec([2, 3])], count=tf.Variable(1.0, name="steps"), w=weight(3)
    )
    save(model, serve, tmp_path / "model")
    return harness.saved_model(tmp_path / "model")


def test_a_frozen_graph_cannot_hold_it(counting, tmp_path):
    model = harness.freeze_model(counting, tmp_path, written="keep")
    (name,) = model.variables
    given = StageInput(model=model, source=counting)
    context = StepContext(tmp_path, tmp_path, None, io.StringIO())
    with pytest.raises(
        ModelRefused, match="1 variables, which a frozen graph cannot hold"
    ) as error:
        export.STAGE.run(given, export.STAGE.params(to="out.pb"), context)
    assert error.value.where == name
    assert "need a SavedModel" in error.value.hint
    assert not list(tmp_path.glob("out*"))


def test_nothing_is_kept_that_no_output_sees(tmp_path):
    (model, serve), feeds = tf2_models.write_that_nobody_sees()
    save(model, serve, tmp_path / "model")
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path, written="keep")
    assert not frozen.variables
    original = harness.run_original(tmp_path / "model", "serving_default", feeds)
    harness.assert_same(original, harness.run_frozen(frozen, "serving_default", feeds))


def test_a_random_generator_that_no_longer_moves(tmp_path):
    generator = tf.random.Generator.from_seed(1)
    model, serve = tf2_models.build(
        random_numbers, [spec([2, 3])], w=weight(3), generator=generator
    )
    save(model, serve, tmp_path / "model")
    source = harness.saved_model(tmp_path / "model")
    with pytest.raises(ModelRefused, match="written by RngReadAndSkip"):
        harness.freeze_model(source, tmp_path)
    frozen = harness.freeze_model(source, tmp_path, written="drop")
    first = harness.run_original(tmp_path / "model", "serving_default", FEEDS)
    for _ in range(2):
        have = harness.run_frozen(frozen, "serving_default", FEEDS)
        np.testing.assert_array_equal(have["y"], first["y"])
