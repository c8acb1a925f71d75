"""Confinement holds in the process that asked for it, and says what holds."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

LINUX = sys.platform.startswith("linux")


def confined(tmp_path, code, *, memory=None, cpu=None):
    """Runs Python code in a confined process; gives the finished process."""
    inside = tmp_path / "inside"
    inside.mkdir(exist_ok=True)
    head = f"""
        import json, os, pathlib, socket, sys, tempfile
        from freezeflow.tf.confine import confine, in_force
        inside, outside = pathlib.Path({str(inside)!r}), pathlib.Path({str(tmp_path)!r})
        found = confine([inside], memory_bytes={memory}, cpu_seconds={cpu})
    """
    source = textwrap.dedent(head) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False
    )


def landlock_version(tmp_path):
    return json.loads(confined(tmp_path, "print(json.dumps(found))").stdout)["landlock"]


def test_the_record_is_json_and_kept(tmp_path):
    done = confined(tmp_path, "assert in_force() == found; print(json.dumps(found))", cpu=50)
    record = json.loads(done.stdout)
    assert set(record) == {"writes", "landlock", "network", "memory_bytes", "cpu_seconds"}
    assert record["cpu_seconds"] == 50
    assert record["memory_bytes"] is None


def test_temporary_files_and_home_move_inside(tmp_path):
    done = confined(
        tmp_path,
        """
        with tempfile.NamedTemporaryFile() as file:
            print(file.name.startswith(str(inside)), pathlib.Path.home() == inside)
        (inside / "a").mkdir()
        (inside / "a" / "b").write_text("x")
        os.rename(inside / "a" / "b", inside / "c")
        open(os.devnull, "w").write("x")
        """,
    )
    assert done.stdout == "True True\n", done.stderr


@pytest.mark.skipif(not LINUX, reason="Landlock is Linux's")
@pytest.mark.parametrize(
    "attempt",
    [
        "(outside / 'written').write_text('x')",
        "(outside / 'kept').write_text('changed')",
        "os.truncate(outside / 'kept', 0)",
        "os.unlink(outside / 'kept')",
        "os.mkdir(outside / 'written')",
        "os.symlink('/', outside / 'written')",
        "os.rename(outside / 'kept', inside / 'taken')",
    ],
)
def test_nothing_is_written_outside(tmp_path, attempt):
    if not landlock_version(tmp_path):
        pytest.skip("this kernel has no Landlock")
    (tmp_path / "kept").write_text("as it was")
    done = confined(
        tmp_path,
        f"""
        try:
            {attempt}
        except OSError as error:
            print(type(error).__name__)
        """,
    )
    assert done.stdout in ("PermissionError\n", "OSError\n"), done.stderr
    assert (tmp_path / "kept").read_text() == "as it was"
    assert not (tmp_path / "written").exists()


@pytest.mark.skipif(not LINUX, reason="Landlock is Linux's")
def test_children_are_confined_too(tmp_path):
    if not landlock_version(tmp_path):
        pytest.skip("this kernel has no Landlock")
    done = confined(
        tmp_path,
        "import subprocess; sys.exit(subprocess.call(['touch', str(outside / 'written')]))",
    )
    assert done.returncode != 0
    assert not (tmp_path / "written").exists()


@pytest.mark.skipif(not LINUX, reason="namespaces are Linux's")
def test_no_connection_leaves(tmp_path):
    done = confined(
        tmp_path,
        """
        server = socket.socket()
        try:
            server.bind(("127.0.0.1", 0))
            server.listen()
            socket.create_connection(server.getsockname(), 5)
        except OSError as error:
            print(type(error).__name__, found["network"])
        """,
    )
    if "not confined" in confined(tmp_path, "print(found['network'])").stdout:
        pytest.skip("this kernel confines no network")
    assert done.stdout.split()[0] in ("PermissionError", "OSError", "ConnectionRefusedError")


def test_memory_is_limited(tmp_path):
    done = confined(
        tmp_path,
        """
        try:
            bytearray(2**30)
        except MemoryError:
            print("refused")
        """,
        memory=2**28,
    )
    assert done.stdout == "refused\n", done.stderr


def test_processor_time_is_limited(tmp_path):
    done = confined(tmp_path, "while True: pass", cpu=1)
    assert done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_no_core_is_dumped(tmp_path):
    done = confined(tmp_path, "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))")
    assert done.stdout == "(0, 0)\n"


def test_tensorflow_works_inside(tmp_path):
    done = confined(
        tmp_path,
        """
        import tensorflow as tf
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            print(session.run(tf.constant(2.0) * 3.0))
            try:
                session.run(tf.raw_ops.WriteFile(filename=str(outside / "w"), contents="x"))
            except tf.errors.PermissionDeniedError:
                print("refused")
        """,
    )
    assert os.listdir(tmp_path) == ["inside"]
    expected = "6.0\nrefused\n" if landlock_version(tmp_path) else "6.0\n"
    assert done.stdout == expected, done.stderr
