"""Being told to stop: Ctrl-C may be taken calmly once; a termination signal never is."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def interruptible(interrupt: Callable[[], bool]) -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt, so that all that Ctrl-C cleans up is cleaned up.

    Args:
        interrupt: Called for Ctrl-C; KeyboardInterrupt is raised unless it returns True. Where
            Ctrl-C is ignored, or something else hears it, that stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM or not interrupt():
            raise KeyboardInterrupt

    heard = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        heard.append(signal.SIGINT)
    before = {number: signal.signal(number, hear) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
