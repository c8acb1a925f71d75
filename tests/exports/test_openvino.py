import numpy as np
import openvino

from tests.exports.running import DIGITS


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
