"""Inputs from a folder of pictures, brought to the size and range that a model takes.

Decoded and resized by Pillow (the extra ``images``), whose filters work in integers and give the same
bytes everywhere for one version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from freezeflow.errors import MissingExtra, StageFailed
from freezeflow.proof.dtypes import FLOATS, Array, numpy_dtype, range_of
from freezeflow.values import DType, Signature, TensorSpec

if TYPE_CHECKING:
    from PIL.Image import Image

Resize = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]

_FILTERS = {
    "nearest": "NEAREST",
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
    "area": "BOX",
    "lanczos": "LANCZOS",
}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# A picture of more pixels is refused before it is decoded.
_MOST_PIXELS = 100_000_000


class Pictures(NamedTuple):
    """Which pictures, and how they become numbers: ``(pixel * scale - mean) / std``.

    Args:
        folder: Where they are.
        key: The input that takes them; None for the only one of four dimensions.
        size: Height and width; None for what the signature says.
        resize: The filter.
        scale: What each pixel (0 to 255) is multiplied by.
        mean: What is subtracted then, one number or one for each channel.
        std: What it is divided by then, the same.
        layout: Where the channels are.
        channels: 1, 3 or 4; None for what the signature says, else 3.
        batch: Pictures of one call.
    """

    folder: Path
    key: str | None
    size: tuple[int, int] | None
    resize: Resize
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Literal["NHWC", "NCHW"]
    channels: int | None
    batch: int


def picture_inputs(
    pictures: Pictures, signature: Signature
) -> Iterator[tuple[str, Mapping[str, Array]]]:
    """The picture input of each call, with the names of its files; nothing where there is none.

    Raises:
        MissingExtra: Pillow is not installed.
        StageFailed: There are no pictures, one cannot be read, or they do not fit the input.
    """
    key = pictures.key or _picture_key(signature)
    if key is None or key not in signature.inputs:
        return
    spec = signature.inputs[key]
    if spec.dtype is not DType.UINT8 and spec.dtype not in FLOATS:
        raise StageFailed(
            f"input {key!r} takes {spec.dtype.tf_name}, and pictures become uint8 or floats",
            hint="Name another input: validate: {images: {input: KEY, ...}}.",
        )
    channels = pictures.channels or _known(spec, pictures.layout, "C") or 3
    size = pictures.size or _size(spec, pictures)
    files = _files(pictures.folder)
    fixed = _known(spec, pictures.layout, "N")
    step = fixed or pictures.batch
    for start in range(0, len(files), step):
        batch = files[start : start + step]
        if fixed and len(batch) < fixed:
            if start == 0:
                raise StageFailed(f"{key!r} takes {fixed} pictures, and there are {len(batch)}")
            return
        pixels = np.stack([_pixels(file, size, channels, pictures.resize) for file in batch])
        yield ", ".join(file.name for file in batch), {key: _numbers(pixels, spec.dtype, pictures)}


def pillow_version() -> str:
    """The version of Pillow, which belongs to a verdict about pictures."""
    import PIL

    return str(PIL.__version__)


def _picture_key(signature: Signature) -> str | None:
    found = [
        key for key, spec in signature.inputs.items() if spec.shape is None or len(spec.shape) == 4
    ]
    return found[0] if len(found) == 1 else None


def _known(spec: TensorSpec, layout: str, axis: str) -> int | None:
    if spec.shape is None:
        return None
    if len(spec.shape) != len(layout):
        raise StageFailed(f"pictures need an input of four dimensions, not {len(spec.shape)}")
    return spec.shape[layout.index(axis)]


def _size(spec: TensorSpec, pictures: Pictures) -> tuple[int, int]:
    height, width = (_known(spec, pictures.layout, axis) for axis in "HW")
    if height is None or width is None:
        raise StageFailed(
            "the signature does not say how large the pictures should be",
            where=str(pictures.folder),
            hint="Say it: validate: {images: {size: [224, 224], ...}}.",
        )
    return height, width


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise StageFailed(
            "holds no pictures",
            where=str(folder),
            hint=f"Known are {', '.join(sorted(_SUFFIXES))}.",
        )
    return found


def _pixels(path: Path, size: tuple[int, int], channels: int, resize: Resize) -> Array:
    """One picture: uint8 [height, width, channels], turned as its camera says."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise MissingExtra(
            "reading pictures needs Pillow", hint="pip install 'freezeflow[images]'"
        ) from None
    try:
        with Image.open(path) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise StageFailed(
                    f"has {file.width} x {file.height} pixels, which is too many", where=str(path)
                )
            return _resized(ImageOps.exif_transpose(file).convert(_MODES[channels]), size, resize)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise StageFailed(f"cannot be read as a picture: {error}", where=str(path)) from None


def _resized(picture: Image, size: tuple[int, int], resize: Resize) -> Array:
    from PIL import Image

    height, width = size
    if picture.size != (width, height):
        picture = picture.resize((width, height), getattr(Image.Resampling, _FILTERS[resize]))
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _numbers(pixels: Array, dtype: DType, pictures: Pictures) -> Array:
    values: Any = pixels.astype(np.float64) * pictures.scale
    values = (values - np.array(pictures.mean)) / np.array(pictures.std)
    if dtype is DType.UINT8:
        values = np.clip(np.rint(values), *range_of(dtype))
    if pictures.layout == "NCHW":
        values = np.moveaxis(values, -1, 1)
    return np.ascontiguousarray(values.astype(numpy_dtype(dtype)))
