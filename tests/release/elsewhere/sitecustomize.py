"""Makes a Python process see another machine: folders list their files backwards, it is two years on."""

import os
import time

_scandir, _listdir, _time, _time_ns = os.scandir, os.listdir, time.time, time.time_ns

_YEARS = 2 * 365 * 24 * 3600 if os.environ.get("FREEZEFLOW_TEST_LATER") else 0


class _Backwards:
    def __init__(self, found):
        self._entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        self._iterator = iter(self._entries)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._iterator)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def close(self):
        return None


def scandir(path="."):
    with _scandir(path) as found:
        return _Backwards(list(found))


if os.environ.get("FREEZEFLOW_TEST_BACKWARDS"):
    os.scandir = scandir
    os.listdir = lambda path=".": sorted(_listdir(path), reverse=True)

if _YEARS:
    time.time = lambda: _time() + _YEARS
    time.time_ns = lambda: _time_ns() + _YEARS * 10**9
