"""Notes what tensors in loops hold, round by round, by Python functions put behind them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from freezeflow.proof.dtypes import Array
from freezeflow.proof.rounds import Round

v1 = tf.compat.v1

# What one side's loops may hold together; what comes later is not noted.
_MOST_BYTES = 256 * 1024 * 1024
_MOST_VALUES = 200_000


class Recorder:
    """Values by tensor and round.

    Args:
        seconds: The run is ended, by an error, when it has gone on for so long or there is no more room;
            None to let it come to its own end.

    Attributes:
        seen: Tensor to what it held in each round in which it was alive.
        whole: Whether there was room for all of it.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._started: float | None = None
        self.seen: dict[str, dict[Round, Array]] = {}
        self.whole = True
        self._bytes = 0
        self._values = 0

    def watch(self, tensor: str, name: str, clock: Sequence[str], *, of_next: bool) -> Any:
        """Puts an op behind a tensor, in the default graph; to be run for its effect.

        Args:
            tensor: What it is noted under.
            name: Its name in the graph.
            clock: Names of the tensors with the round's numbers.
            of_next: Whether it belongs to the next round already; it is noted under the one that made it.
        """

        def note(value: Any, *numbers: Any) -> None:
            *around, number = (int(number) for number in numbers)
            self._note(tensor, (*around, number - of_next), value)

        graph = v1.get_default_graph()
        inputs = [graph.get_tensor_by_name(each) for each in (name, *clock)]
        return tf.numpy_function(note, inputs, [], stateful=True)

    def _note(self, tensor: str, numbers: Round, value: Any) -> None:
        array = np.array(value)
        self._bytes += array.nbytes
        self._values += 1
        if self._bytes > _MOST_BYTES or self._values > _MOST_VALUES:
            self.whole = False
            self._check_time(is_over=True)
            return
        self._check_time(is_over=False)
        self.seen.setdefault(tensor, {})[numbers] = array

    def _check_time(self, *, is_over: bool) -> None:
        """Raises what ends the run; TensorFlow itself does not end one in which Python is called."""
        if self._seconds is None:
            return
        if self._started is None:
            self._started = time.monotonic()
        if is_over or time.monotonic() - self._started > self._seconds:
            raise TimeoutError("enough rounds of a loop that does not end")
