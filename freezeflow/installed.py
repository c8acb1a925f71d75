"""Which packages are installed, in which version, without importing them."""

from __future__ import annotations

import contextlib

# Packages that bring the same under another name.
_ALSO_CALLED = {
    "onnxruntime": ("onnxruntime-gpu",),
    "opencv-python-headless": ("opencv-python",),
    "tensorflow": ("tensorflow-cpu", "tensorflow-intel", "tf-nightly"),
}


def version_of(package: str) -> str | None:
    """The version of a package, by its name on PyPI; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    for name in (package, *_ALSO_CALLED.get(package, ())):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None
