"""Executors that the tests offer by the entry point group ``freezeflow.executors``."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

OPENED: list[str] = []


def threads(argument: str) -> Executor:
    OPENED.append(argument)
    return ThreadPoolExecutor(int(argument or 2))


def processes(argument: str) -> Executor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(int(argument or 2), mp_context=context)
