"""What every executor must do, and what only processes can."""

import dataclasses
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freezeflow.engine import executors
from freezeflow.engine.executors import Executor, InProcess, LocalExecutor
from freezeflow.engine.forkserver import ForkServer
from freezeflow.engine.orders import Limits, Order, Report, Work
from freezeflow.engine.processes import Processes, Residents
from freezeflow.errors import ModelRefused, StageFailed
from freezeflow.values import Digest, ModelSource
from tests.engine.builders import CHANGE, LOAD

PRELOAD = ("freezeflow.engine.worker", "freezeflow.graph.storage", "freezeflow.graph.verify")

KINDS: dict[str, Callable[[Path], Executor]] = {
    "in process": lambda folder: InProcess(),
    "processes": lambda folder: Processes(
        lambda: ForkServer(PRELOAD, {}, folder / "server.txt"), "a process"
    ),
    "residents": lambda folder: Residents(folder / "residents.txt"),
    "local": lambda folder: LocalExecutor(folder, apart=False),
    "local, apart": lambda folder: LocalExecutor(folder, apart=True),
}


@pytest.fixture(params=KINDS)
def executor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Executor]:
    made = KINDS[request.param](tmp_path)
    yield made
    made.stop()


@pytest.fixture(params=["processes", "residents"])
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Executor]:
    made = KINDS[request.param](tmp_path)
    yield made
    made.stop()


@pytest.fixture
def work(folder: Path, tmp_path: Path) -> Callable[..., Work]:
    """Makes work: the test stage that loads, with some parameters."""

    def make(name: str = "one", seconds: float | None = None, **params: Any) -> Work:
        scratch = tmp_path / "scratch" / name
        scratch.mkdir(parents=True)
        order = Order(
            stage=LOAD.name,
            params=params,
            source=ModelSource(kind="saved_model", path=folder / "model"),
            base=folder,
            recipe_digest=None,
            scratch=scratch,
            model=None,
            limits=None,
        )
        return Work(name=name, order=order, in_tensorflow=False, model_digest=None, seconds=seconds)

    return make


def all_reports(executor: Executor, count: int) -> dict[str, Report]:
    found: dict[str, Report] = {}
    while len(found) < count:
        for name, report in executor.wait():
            assert name not in found
            found[name] = report
    return found


# ---------------------------------------------------------------- every executor


def test_a_report_comes_back(executor: Executor, work: Callable[..., Work]) -> None:
    one = work(say="hello", warn="careful")
    executor.start(one)
    report = all_reports(executor, 1)["one"]
    assert report.failure is None
    assert report.crash is None
    assert report.model is not None
    assert len(report.model.tensors) == 1
    assert report.facts["nodes"] == 3
    assert report.warnings == ("careful",)
    assert report.seconds > 0
    assert report.peak_rss_bytes > 1_000_000
    assert one.order.log.read_text() == "hello\nwarning: careful\n"


def test_reports_are_the_same_everywhere(tmp_path: Path, work: Callable[..., Work]) -> None:
    models = []
    for number, make in enumerate(KINDS.values()):
        executor = make(tmp_path)
        executor.start(work(f"work-{number}", rename="z", fold=True))
        (report,) = all_reports(executor, 1).values()
        executor.stop()
        assert report.model is not None
        models.append((report.model.graph, report.model.record))
    assert models == models[:1] * len(models)


def test_much_work(executor: Executor, work: Callable[..., Work]) -> None:
    for number in range(8):
        executor.start(work(f"work-{number}", rename=f"n{number}"))
    found = all_reports(executor, 8)
    assert set(found) == {f"work-{number}" for number in range(8)}
    assert len({report.model.graph for report in found.values() if report.model}) == 8


def test_a_failure_comes_back(executor: Executor, work: Callable[..., Work]) -> None:
    executor.start(work(fail="refuse"))
    error = all_reports(executor, 1)["one"].failure
    assert isinstance(error, ModelRefused)
    assert (error.message, error.where, error.hint) == (
        "this will not do",
        "a/node",
        "take another",
    )


def test_a_bug_comes_back(executor: Executor, work: Callable[..., Work]) -> None:
    executor.start(work(fail="bug"))
    crash = all_reports(executor, 1)["one"].crash
    assert crash is not None
    assert crash.strip().endswith("ZeroDivisionError: a bug")


def test_stopping_twice_is_fine(executor: Executor, work: Callable[..., Work]) -> None:
    executor.start(work())
    executor.stop()
    executor.stop()


# ---------------------------------------------------------------- processes


def test_a_killed_process_takes_down_nothing_else(
    processes: Executor, work: Callable[..., Work]
) -> None:
    processes.start(work("killed", fail="kill"))
    processes.start(work("other", seconds=60.0))
    found = all_reports(processes, 2)
    error = found["killed"].failure
    assert isinstance(error, StageFailed)
    assert error.message == "its process was killed by SIGKILL"
    assert "out of memory" in error.hint
    assert found["other"].failure is None
    processes.start(work("after"))
    assert all_reports(processes, 1)["after"].failure is None


def test_one_that_the_kernel_ends_for_want_of_memory(
    processes: Executor, work: Callable[..., Work], memory_group: Path
) -> None:
    processes.start(work("large", fail="eat", group=str(memory_group)))
    processes.start(work("other", say="hello"))
    found = all_reports(processes, 2)
    lost = found["large"]
    assert isinstance(lost.failure, StageFailed)
    said = "ran out of memory: the kernel ended its process, which had "
    assert lost.failure.message.startswith(said)
    assert lost.lost == "memory"
    # The kernel counts from before a process becomes another program: what this one had, too.
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 200e6 < lost.own_peak_bytes < max(400e6, 1.1 * here)
    assert found["other"].failure is None


def test_a_process_that_ends_without_a_report(
    processes: Executor, work: Callable[..., Work]
) -> None:
    processes.start(work(fail="exit"))
    error = all_reports(processes, 1)["one"].failure
    assert error is not None
    assert error.message == "its process ended with code 7"


def test_work_that_takes_too_long_is_ended(processes: Executor, work: Callable[..., Work]) -> None:
    started = time.monotonic()
    late = work("late", seconds=0.5)
    late.order.params["seconds"] = 60  # type: ignore[index]
    processes.start(late)
    error = all_reports(processes, 1)["late"].failure
    assert error is not None
    assert error.message == "was ended after 0.5 seconds"
    assert time.monotonic() - started < 20


def test_what_a_process_prints_is_in_its_log(
    processes: Executor, work: Callable[..., Work]
) -> None:
    killed = work(fail="kill", say="first")
    processes.start(killed)
    all_reports(processes, 1)
    assert killed.order.log.read_text() == "first\nlast words\n"


def test_stopping_leaves_no_process(processes: Executor, work: Callable[..., Work]) -> None:
    slow = work("slow")
    slow.order.params["seconds"] = 600  # type: ignore[index]
    processes.start(slow)
    group = leader(processes)
    wait_until(lambda: len(members(group)) == (2 if isinstance(processes, Processes) else 1))
    processes.stop()
    wait_until(lambda: members(group) == [])


def leader(processes: Executor) -> int:
    """The process that began the group of an executor's processes."""
    if isinstance(processes, Residents):
        return processes._all[0]._process.pid
    assert isinstance(processes, Processes)
    return processes._server._process.pid  # type: ignore[union-attr]


def test_a_process_that_stays_ends_with_its_owner(
    tmp_path: Path, work: Callable[..., Work]
) -> None:
    made = Residents(tmp_path / "residents.txt")
    slow = work("slow")
    slow.order.params["seconds"] = 600  # type: ignore[index]
    made.start(slow)
    wait_until(slow.order.log.exists)
    os.close(made._all[0]._life)
    made._all[0]._life = os.open(os.devnull, os.O_RDONLY)
    ((_, report),) = made.wait()
    assert report.lost == "died"
    made.stop()


def test_a_model_stays_in_the_memory_of_a_process(
    tmp_path: Path, work: Callable[..., Work]
) -> None:
    made = Residents(tmp_path / "residents.txt")
    made.start(work("one"))
    all_reports(made, 1)
    digest = Digest("1" * 64)
    made.adopt("one", digest)
    assert made.holds(digest, in_tensorflow=False)
    two = work("two", rename="z")
    change = dataclasses.replace(two.order, stage=CHANGE.name)
    made.start(dataclasses.replace(two, order=change, model_digest=digest))
    assert not made.holds(digest, in_tensorflow=False)
    report = all_reports(made, 1)["two"]
    assert report.model is not None
    assert made.holds(digest, in_tensorflow=False)
    assert len(made._all) == 1
    made.stop()


def test_a_model_with_tensors_of_its_own_is_taken_from_the_store(
    tmp_path: Path, work: Callable[..., Work]
) -> None:
    made = Residents(tmp_path / "residents.txt")
    made.start(work("one"))
    all_reports(made, 1)
    digest = Digest("1" * 64)
    made.adopt("one", digest)
    two = work("two", fold=True)
    change = dataclasses.replace(two.order, stage=CHANGE.name)
    made.start(dataclasses.replace(two, order=change, model_digest=digest))
    report = all_reports(made, 1)["two"]
    assert report.model is not None
    folded = Digest("2" * 64)
    made.adopt("two", folded)
    assert not made.holds(folded, in_tensorflow=False)
    assert made.holds(digest, in_tensorflow=False)
    made.stop()


def test_a_dead_server_is_reported_for_all_its_work(
    tmp_path: Path, work: Callable[..., Work]
) -> None:
    processes = KINDS["processes"](tmp_path)
    slow = work("slow")
    slow.order.params["seconds"] = 600  # type: ignore[index]
    processes.start(slow)
    assert isinstance(processes, Processes)
    group = processes._server._process.pid  # type: ignore[union-attr]
    wait_until(lambda: len(members(group)) == 2)
    os.kill(group, signal.SIGKILL)
    error = all_reports(processes, 1)["slow"].failure
    assert isinstance(error, StageFailed)
    assert "has died" in error.message
    wait_until(lambda: members(group) == [])


def test_a_server_that_cannot_start(tmp_path: Path, work: Callable[..., Work]) -> None:
    broken = Processes(
        lambda: ForkServer(["no.such.module"], {}, tmp_path / "server.txt"), "TensorFlow"
    )
    broken.start(work())
    error = all_reports(broken, 1)["one"].failure
    broken.stop()
    assert error is not None
    assert "TensorFlow could not be started" in error.message
    assert "No module named 'no'" in error.message


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    """Even one that is killed: the server's input closes."""
    server = ForkServer(["json"], {}, tmp_path / "server.txt")
    (tmp_path / "scratch").mkdir()
    group = server._process.pid
    wait_until(lambda: members(group) == [group])
    assert server._process.stdin is not None
    server._process.stdin.close()
    assert server._process.wait(timeout=20) == -signal.SIGKILL
    server.stop()


def test_the_environment_is_the_servers(tmp_path: Path) -> None:
    assert executors.TENSORFLOW_ENVIRONMENT["OPENBLAS_NUM_THREADS"] == "1"
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    server = ForkServer([], executors.TENSORFLOW_ENVIRONMENT, tmp_path / "server.txt")
    environment = Path(f"/proc/{server._process.pid}/environ")
    wait_until(lambda: b"OPENBLAS_NUM_THREADS=1\0" in environment.read_bytes())
    server.stop()


def members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return sorted(found)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_limits_reach_the_process(work: Callable[..., Work]) -> None:
    order = work().order
    limited = Order(
        **{
            **{name: getattr(order, name) for name in order.__slots__},
            "limits": Limits(memory_bytes=1 << 30, cpu_seconds=60),
        }
    )
    limited.save()
    assert Order.load(order.scratch) == limited
    assert CHANGE.in_tensorflow is False
