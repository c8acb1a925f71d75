import os
import subprocess
import sys

import numpy as np
import openvino

from tests.exports.running import DIGITS, ROOT


def test_the_digits_are_read_in_both_precisions(ran):
    data = np.load(DIGITS / "held_out.npz")
    for branch, name in (("openvino", "m"), ("openvino-float16", "h")):
        ran.facts(branch)
        compiled = openvino.Core().compile_model(str(ran.folder / "ov" / f"{name}.xml"), "CPU")
        (given,) = compiled.inputs
        assert given.get_names() <= set(data)
        scores = compiled({given.any_name: data[given.any_name]})[compiled.output(0)]
        assert np.mean(np.argmax(scores, -1) == data["labels"]) > 0.9
    sizes = [(ran.folder / "ov" / f"{name}.bin").stat().st_size for name in "mh"]
    assert sizes[1] < 0.6 * sizes[0]


# In a process of its own, as its converter is: what is set there stays.
CONVERTED = """
import sys
from pathlib import Path

from openvino_telemetry.utils.sender import TelemetrySender

from freezeflow.graph.write import graph_def_pieces
from freezeflow.runtimes.runtime import Names
from freezeflow.store.files import write_atomically
from freezeflow.tf.to_openvino import to_openvino
from freezeflow.values import DType
from tests.graphs import graph, model, node, placeholder, spec

sent = []
TelemetrySender.send = lambda self, *message: sent.append(message)
nodes = (placeholder("x", DType.FLOAT, (2, 2)), node("y", "Neg", "x", T=DType.FLOAT))
ends = [{key: spec(f"{key}:0", shape=(2, 2))} for key in "xy"]
made = model(graph(*nodes), *ends)
folder = Path(sys.argv[1])
write_atomically(folder / "m.pb", graph_def_pieces(made.graph))
to_openvino(made, folder / "m.pb", Names({"x": "x"}, {"y": "y"}), folder / "m.xml", half=False)
assert (folder / "m.xml").is_file()
sys.exit(len(sent))
"""


def test_the_converter_reports_to_nobody(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    command = [sys.executable, "-c", CONVERTED, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
