"""A C++ program that calls what XLA compiled ahead of time.

It is written for the signature, compiled against the headers and libraries of the installed
TensorFlow, and answers saved calls. Compiling and linking takes about 6 s, by GNU's usual linker 12 s.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from freezeflow.errors import RuntimeRefused
from freezeflow.runtimes.runtime import Runtime, Subject
from freezeflow.values import Json

# What the runtime has to know beside the file: the class in the header.
CPP_CLASS = "cpp_class"

_PROGRAM = """\
#include <cstdio>
#include <cstdlib>
#include "model.h"

// Reads all arguments of a call from standard input, writes all results to standard output, for as many
// calls as it is told: a model without arguments has nothing to read that would end.
int main(int, char** told) {
  %(cpp_class)s model;
  for (long calls = std::atol(told[1]); calls > 0; --calls) {
    for (int i = 0; i < %(arguments)d; ++i) {
      size_t size = model.arg_size(i);
      if (std::fread(model.arg_data(i), 1, size, stdin) != size) return 2;
    }
    if (!model.Run()) {
      std::fputs(model.error_msg().c_str(), stderr);
      return 1;
    }
    for (int i = 0; i < %(results)d; ++i) {
      std::fwrite(model.result_data(i), 1, model.result_size(i), stdout);
    }
  }
}
"""

# In the header: (arg0: f32[2,4], ...) -> (f32[2,10], ...)
_LOGICAL = re.compile(r"The logical function signature is:\n//\s+\(.*?\) -> (\(?.*\)?)\n")
_RESULT = re.compile(r"(\w+)\[([\d,]*)\]")
_DTYPES = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "s8": "int8",
    "s16": "int16",
    "s32": "int32",
    "s64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "pred": "bool",
    "c64": "complex64",
}


def compiler() -> str | None:
    """The C++ compiler, by CXX or its usual names."""
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def linker() -> Sequence[str]:
    """The option for a linker that looks through TensorFlow's 1 GB library in 1 s, where there is one."""
    quick = next((name for name in ("lld", "gold") if shutil.which(f"ld.{name}")), None)
    return [] if quick is None else [f"-fuse-ld={quick}"]


def missing() -> str:
    """What there is to be installed, in words; empty if all is there."""
    return "" if compiler() else "the check compiles a program, and there is no C++ compiler (g++)"


def _answer(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    from freezeflow.proof.saved_calls import load_calls, save_calls

    file = subject.file
    arguments, results = subject.names.in_order()
    program = _built(subject, calls.with_name("program"))
    given = load_calls(calls)
    data = b"".join(
        call[key].tobytes() for call in given if not isinstance(call, str) for key in arguments
    )
    done = subprocess.run([program, str(len(given))], input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeRefused(f"the compiled model: {done.stderr.decode(errors='replace')[:200]}")
    save_calls(answers, _results(done.stdout, file, results, len(given)))
    return {}


def _built(subject: Subject, folder: Path) -> Path:
    """The program, compiled and linked in a new folder."""
    header, names = subject.file, subject.names
    folder.mkdir()
    source = folder / "main.cc"
    filled = {
        "cpp_class": subject.options[CPP_CLASS],
        "arguments": len(names.inputs),
        "results": len(names.outputs),
    }
    source.write_text(_PROGRAM % filled)
    chosen = compiler()
    if chosen is None:
        raise RuntimeRefused("there is no C++ compiler")
    program = folder / "program"
    done = subprocess.run(
        [chosen, *command(header, source), "-o", program],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stderr)  # noqa: T201  into the step's log
        raise RuntimeRefused("the program that calls the model cannot be compiled")
    return program


def command(header: Path, source: Path) -> Sequence[str | Path]:
    """What a C++ compiler is called with to make a program from a source and an exported model."""
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent
    runtime_source = home / "xla_aot_runtime_src/tensorflow/compiler/tf2xla"
    return [
        *("-std=c++17", "-O1", "-w", f"-I{home / 'include'}", f"-I{header.parent}"),
        *(source, runtime_source / "xla_compiled_cpu_function.cc"),
        *sorted(header.parent.glob("*.o")),
        *(f"-L{home}", "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"),
        *(f"-Wl,-rpath,{home}", "-Wl,--allow-shlib-undefined", *linker()),
    ]


def _results(data: bytes, header: Path, keys: list[str], count: int) -> list[Json]:
    """The results of all calls, out of what the program wrote."""
    import numpy as np

    found = _LOGICAL.search(header.read_text())
    described = _RESULT.findall(found[1]) if found else []
    if len(described) != len(keys):
        raise RuntimeRefused("the header tells other results than the signature")
    answers = []
    offset = 0
    for _ in range(count):
        answer = {}
        for key, (kind, sizes) in zip(keys, described, strict=True):
            shape = tuple(int(size) for size in sizes.split(",") if size)
            dtype = np.dtype(_DTYPES[kind])
            length = int(np.prod(shape, dtype=int)) * dtype.itemsize
            answer[key] = np.frombuffer(data[offset : offset + length], dtype).reshape(shape)
            offset += length
        answers.append(answer)
    return answers


RUNTIME = Runtime(name="xla_aot", answer=_answer, tools=("tensorflow",), missing=missing)
