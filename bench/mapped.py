"""A frozen graph in one process: ``python -m bench.mapped FILE.pb``, for weights inside or beside it.

Prints a line of JSON: seconds to load the graph, seconds of the first call. Then, whenever a line comes
in, the memory of the process: what is its own and its share of what it shares with others (Pss).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

import freezeflow


def main() -> None:
    start = time.perf_counter()
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(freezeflow.load_graph(sys.argv[1]), name="")
    session = tf.compat.v1.Session(graph=graph)
    loaded = time.perf_counter()
    width = graph.get_tensor_by_name("x:0").shape[1]
    session.run("y:0", {"x:0": np.ones([1, width], np.float32)})
    called = time.perf_counter()
    print(json.dumps({"load_s": loaded - start, "first_call_s": called - loaded}), flush=True)
    for _ in sys.stdin:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        (share,) = (line.split()[1] for line in lines if line.startswith("Pss:"))
        print(json.dumps({"pss_bytes": int(share) * 1024}), flush=True)


if __name__ == "__main__":
    main()
