"""Frozen graphs where no Python is, and where TensorFlow is not."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.exports.running import DIGITS, ROOT, Branches

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def tensorflow_folder():
    program = "import importlib.util as u; print(u.find_spec('tensorflow').origin)"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    return Path(found.stdout.strip()).parent


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The digits, frozen and folded."""
    exports = {"folded": {"to": "folded.pb"}}
    return Branches(
        tmp_path_factory.mktemp("elsewhere"), exports, jobs=1, before=("freeze", "strip", "fold")
    )


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_the_c_program_of_the_docs(graphs, tmp_path):
    home = tensorflow_folder()
    program = tmp_path / "run_frozen"
    command = [COMPILER, f"-I{home / 'include'}", ROOT / "docs" / "run_frozen.c", "-o", program]
    command += [f"-L{home}", "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    subprocess.run([*command, f"-Wl,-rpath,{home}", "-Wl,--allow-shlib-undefined"], check=True)
    (file, *_) = graphs.published("folded")
    done = subprocess.run(
        [program, file, "image", "probabilities"], capture_output=True, check=True, text=True
    )
    found = [float(number) for number in done.stdout.split()]
    assert len(found) == 10
    assert sum(found) == pytest.approx(1.0, abs=1e-4)
    assert len((ROOT / "docs" / "run_frozen.c").read_text().splitlines()) < 35


OPENCV = """
import sys, cv2, numpy
images = numpy.load(sys.argv[2])
net = cv2.dnn.readNetFromTensorflow(sys.argv[1])
net.setInput(numpy.ascontiguousarray(images.transpose(0, 3, 1, 2)))
numpy.save(sys.argv[3], net.forward())
"""


def in_opencv(graph, images, folder):
    """What OpenCV answers, in a process of its own: its reader has crashed on other graphs."""
    given, found = folder / "images.npy", folder / "found.npy"
    np.save(given, images)
    done = subprocess.run(
        [sys.executable, "-c", OPENCV, graph, given, found],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return np.load(found)


@pytest.mark.slow
def test_opencv_reads_the_folded_network(graphs, tmp_path):
    pytest.importorskip("cv2")
    (file, *_) = graphs.published("folded")
    with np.load(DIGITS / "held_out.npz") as data:
        found = in_opencv(file, data["image"], tmp_path)
        assert np.mean(found.argmax(-1) == data["labels"]) > 0.9


def preactivated(x):
    """Batch norms that stand before their convolution, and so are not folded away."""
    from keras import layers

    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(8, 3, padding="same", use_bias=False)(y)
        x = layers.Concatenate()([x, layers.ReLU()(layers.BatchNormalization()(y))])
    return x


def separable(x):
    """As MobileNet does it."""
    from keras import layers

    for stride in (1, 2):
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        x = layers.BatchNormalization()(layers.Conv2D(16, 1, use_bias=False)(x))
    return layers.MaxPool2D()(x)


@pytest.mark.slow
@pytest.mark.parametrize("network", [preactivated, separable])
def test_opencv_answers_as_keras_does(network, tmp_path):
    pytest.importorskip("cv2")
    import keras

    keras.utils.set_random_seed(3)
    given = keras.layers.Input((16, 16, 3), name="image")
    ends = keras.layers.GlobalAveragePooling2D()(network(given))
    model = keras.Model(given, keras.layers.Dense(5, activation="softmax")(ends))
    random = np.random.default_rng(0)
    # Untrained biases are all the same, and written as one number, which OpenCV takes for one.
    model.set_weights([random.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    model.export(str(tmp_path / "model"), verbose=False)
    ran = Branches(
        tmp_path,
        {"folded": {"to": "folded.pb"}},
        model=tmp_path / "model",
        jobs=1,
        before=("freeze", "strip", "fold"),
    )
    images = random.uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    found = in_opencv(ran.published("folded")[0], images, tmp_path)
    np.testing.assert_allclose(found, model(images).numpy(), atol=1e-5)
