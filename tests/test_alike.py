"""Texts that are kept as what tells them from a sample."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.alike import Alike


@given(st.binary(), st.binary())
def test_a_text_comes_back_whatever_the_sample_is(sample: bytes, text: bytes) -> None:
    assert Alike(sample).unpack(Alike(sample).pack(text)) == text


def test_little_is_left_of_what_the_sample_has() -> None:
    sample = bytes(range(256)) * 20
    text = sample[:3000] + b"another" + sample[3000:]
    assert len(Alike(sample).pack(text)) < 100


def test_what_is_not_packed_is_refused() -> None:
    with pytest.raises(ValueError, match="not packed with this sample"):
        Alike(b"sample").unpack(b"\xff\xff\xff")
