"""Pictures as inputs: sizes, channels, ranges, always the same numbers."""

import builtins

import numpy as np
import pytest

from freezeflow.errors import MissingExtra, StageFailed
from freezeflow.proof.images import Pictures, picture_inputs
from freezeflow.values import DType
from tests.proof.ends import signature

Image = pytest.importorskip("PIL.Image")

ENDS = signature(x=(DType.FLOAT, (None, 4, 6, 3)))


def gradient(height, width):
    row = np.linspace(0, 255, width).astype(np.uint8)
    return np.stack([np.tile(row, (height, 1)), np.full((height, width), 7, np.uint8),
                     np.zeros((height, width), np.uint8)], axis=-1)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "more").mkdir()
    Image.fromarray(gradient(4, 6)).save(tmp_path / "a.png")
    Image.fromarray(gradient(40, 60)).save(tmp_path / "more" / "b.png")
    Image.fromarray(gradient(4, 6)[..., 0]).save(tmp_path / "more" / "c.png")
    (tmp_path / "notes.txt").touch()
    return tmp_path


def pictures(folder, **changed):
    usual = Pictures(folder, None, None, "bilinear", 1.0, (0.0,), (1.0,), "NHWC", None, 8)
    return usual._replace(**changed)


def calls(given, ends=ENDS):
    return [inputs for _, inputs in picture_inputs(given, ends)]


def test_pictures_come_in_order_and_in_the_models_size(folder):
    (found,) = calls(pictures(folder))
    assert found["x"].dtype == np.float32
    assert found["x"].shape == (3, 4, 6, 3)
    assert np.array_equal(found["x"][0], gradient(4, 6))
    # A gradient stays one when it is made smaller, and grey has three equal channels.
    assert np.abs(found["x"][1] - gradient(4, 6)).max() < 30
    assert np.array_equal(found["x"][2][..., 0], found["x"][2][..., 2])
    assert [c["x"].shape[0] for c in calls(pictures(folder, batch=2))] == [2, 1]


def test_scaling_and_layout(folder):
    ends = signature(x=(DType.FLOAT, (None, 3, 4, 6)))
    given = pictures(folder, layout="NCHW", scale=1 / 255, mean=(0.5, 0, 0), std=(0.5, 1, 1))
    (found,) = calls(given, ends)
    assert found["x"].shape == (3, 3, 4, 6)
    assert found["x"][0, 0, 0].min() == pytest.approx(-1)
    assert found["x"][0, 0, 0].max() == pytest.approx(1)
    assert found["x"][0, 1].max() == pytest.approx(7 / 255)


@pytest.mark.parametrize("resize", ["nearest", "bilinear", "bicubic", "area", "lanczos"])
def test_the_same_pictures_give_the_same_bytes(folder, resize):
    given = pictures(folder, resize=resize, size=(3, 5))
    ends = signature(x=(DType.UINT8, (None, None, None, 3)))
    (one,), (other,) = calls(given, ends), calls(given, ends)
    assert one["x"].dtype == np.uint8
    assert one["x"].tobytes() == other["x"].tobytes()


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    picture = Image.fromarray(gradient(4, 6))
    exif = picture.getexif()
    exif[0x0112] = 3
    picture.save(tmp_path / "a.png", exif=exif)
    (found,) = calls(pictures(tmp_path))
    assert np.array_equal(found["x"][0], gradient(4, 6)[::-1, ::-1])


def test_a_batch_that_is_fixed(folder):
    two = signature(x=(DType.FLOAT, (2, 4, 6, 3)))
    assert [c["x"].shape[0] for c in calls(pictures(folder), two)] == [2]
    four = signature(x=(DType.FLOAT, (4, 4, 6, 3)))
    with pytest.raises(StageFailed, match="takes 4 pictures, and there are 3"):
        calls(pictures(folder), four)


def test_what_is_no_picture(folder, tmp_path_factory):
    with pytest.raises(StageFailed, match="no pictures"):
        calls(pictures(tmp_path_factory.mktemp("empty")))
    (folder / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    with pytest.raises(StageFailed, match="cannot be read as a picture") as caught:
        calls(pictures(folder))
    assert caught.value.where.endswith("d.png")


def test_sizes_and_inputs_that_are_not_known(folder):
    with pytest.raises(StageFailed, match="how large"):
        calls(pictures(folder), signature(x=(DType.FLOAT, (None, None, None, 3))))
    with pytest.raises(StageFailed, match="become uint8 or floats"):
        calls(pictures(folder), signature(x=(DType.INT32, (None, 4, 6, 3))))
    assert calls(pictures(folder), signature(n=(DType.INT32, (3,)))) == []


def test_without_pillow_the_extra_is_named(folder, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match="Pillow"):
        calls(pictures(folder))
