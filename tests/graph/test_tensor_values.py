import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.graph import attrs, constants, tensor_values
from freezeflow.messages import message_class
from freezeflow.values import DType


def tensor(dtype, shape=(), **fields):
    message = message_class("TensorProto")(dtype=int(dtype))
    message.tensor_shape.SetInParent()
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    for key, value in fields.items():
        if key in ("tensor_content", "float8_val"):
            setattr(message, key, value)
        else:
            getattr(message, key).extend(value)
    return message


EXACT = {
    DType.FLOAT: ("float_val", [0.5, -2.0, 3e38]),
    DType.DOUBLE: ("double_val", [0.1, -2.0, 1e300]),
    DType.INT32: ("int_val", [1, -2, 2**31 - 1]),
    DType.UINT8: ("int_val", [1, 255, 0]),
    DType.INT16: ("int_val", [1, -2, 32767]),
    DType.INT8: ("int_val", [1, -128, 127]),
    DType.STRING: ("string_val", [b"a", b"\x00\xff", b""]),
    DType.COMPLEX64: ("scomplex_val", [0.5, 1.0, -2.0, 0.0, 3.0, 4.0]),
    DType.COMPLEX128: ("dcomplex_val", [0.1, 1.0, -2.0, 0.0, 3.0, 4.0]),
    DType.INT64: ("int64_val", [1, -2, 2**62]),
    DType.BOOL: ("bool_val", [True, False, True]),
    DType.QINT8: ("int_val", [1, -2, 3]),
    DType.QUINT8: ("int_val", [1, 2, 255]),
    DType.QINT32: ("int_val", [1, -2, 3]),
    DType.QINT16: ("int_val", [1, -2, 3]),
    DType.QUINT16: ("int_val", [1, 65535, 3]),
    DType.UINT16: ("int_val", [1, 65535, 3]),
    DType.UINT32: ("uint32_val", [1, 2**32 - 1, 3]),
    DType.UINT64: ("uint64_val", [1, 2**64 - 1, 3]),
    DType.INT4: ("int_val", [1, -8, 7]),
    DType.UINT4: ("int_val", [1, 15, 7]),
    DType.INT2: ("int_val", [1, -2, 0]),
    DType.UINT2: ("int_val", [1, 3, 0]),
}


@pytest.mark.parametrize("dtype", EXACT, ids=lambda d: d.tf_name)
def test_value_lists(dtype):
    field, values = EXACT[dtype]
    expected = values
    if "complex" in field:
        expected = [complex(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
    if dtype is DType.FLOAT:
        expected = list(struct.unpack("<3f", struct.pack("<3f", *values)))
    assert tensor_values.elements(tensor(dtype, (3,), **{field: values})) == expected
    # A list that is too short repeats its last value; an empty one means zeros.
    longer = tensor_values.elements(tensor(dtype, (5,), **{field: values}))
    assert longer == expected + expected[-1:] * 2
    (zero,) = tensor_values.elements(tensor(dtype))
    assert not zero
    assert type(zero) is type(expected[0])


CONTENT = {
    DType.FLOAT: ("<2f", [0.5, -0.0]),
    DType.DOUBLE: ("<2d", [0.1, -0.0]),
    DType.HALF: ("<2e", [0.5, -65504.0]),
    DType.BOOL: ("<2?", [True, False]),
    DType.INT8: ("<2b", [-1, 1]),
    DType.UINT16: ("<2H", [1, 65535]),
    DType.INT64: ("<2q", [-1, 2**62]),
    DType.UINT64: ("<2Q", [1, 2**64 - 1]),
    DType.QINT32: ("<2i", [-1, 1]),
    DType.INT4: ("<2b", [-8, 7]),
}


@pytest.mark.parametrize("dtype", CONTENT, ids=lambda d: d.tf_name)
def test_content(dtype):
    format_, values = CONTENT[dtype]
    content = struct.pack(format_, *values)
    assert tensor_values.elements(tensor(dtype, (2,), tensor_content=content)) == values


def test_content_of_other_kinds():
    content = struct.pack("<4f", 1.0, 2.0, 3.0, -4.0)
    found = tensor_values.elements(tensor(DType.COMPLEX64, (2,), tensor_content=content))
    assert found == [1 + 2j, 3 - 4j]
    bits = struct.pack("<2H", 0x3FC0, 0xFF80)
    found = tensor_values.elements(tensor(DType.BFLOAT16, (2,), tensor_content=bits))
    assert found == [1.5, -math.inf]
    found = tensor_values.elements(tensor(DType.BFLOAT16, (1,), half_val=[0x3FC0]))
    assert found == [1.5]
    assert tensor_values.elements(tensor(DType.HALF, (1,), half_val=[0x3800])) == [0.5]
    eight = tensor(DType.FLOAT8_E4M3FN, (2,), float8_val=b"\x38\x40")
    assert tensor_values.elements(eight) == [0x38, 0x40]
    eight = tensor(DType.FLOAT8_E5M2, (2,), tensor_content=b"\x38\x40")
    assert tensor_values.elements(eight) == [0x38, 0x40]


def test_int4_ignores_the_upper_bits_of_its_byte():
    packed = tensor(DType.INT4, (2,), tensor_content=b"\x08\xf7")
    assert tensor_values.elements(packed) == [-8, 7]


def test_what_has_no_values():
    with pytest.raises(ValueError, match="resource"):
        tensor_values.elements(tensor(DType.RESOURCE))
    with pytest.raises(ValueError, match="3 bytes do not hold 1 elements of float32"):
        tensor_values.elements(tensor(DType.FLOAT, tensor_content=b"abc"))
    with pytest.raises(ValueError, match="shape"):
        tensor_values.elements(tensor(DType.FLOAT, (-1,)))
    assert tensor_values.elements(tensor(DType.FLOAT, (0, 3))) == []


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0.1, DType.DOUBLE, "0.1"),
        (struct.unpack("<f", struct.pack("<f", 0.1))[0], DType.FLOAT, "0.1"),
        (1.0, DType.FLOAT, "1.0"),
        (1e20, DType.DOUBLE, "1e+20"),
        (-0.0, DType.FLOAT, "-0.0"),
        (math.inf, DType.HALF, "inf"),
        (math.nan, DType.FLOAT, "nan"),
        (1.5, DType.BFLOAT16, "1.5"),
        (True, DType.BOOL, "true"),
        (-3, DType.INT8, "-3"),
        (0x38, DType.FLOAT8_E5M2, "0x38"),
        (1 - 2j, DType.COMPLEX64, "(1.0,-2.0)"),
        ("grün".encode(), DType.STRING, '"grün"'),
        (b'say "\\"', DType.STRING, '"say \\"\\\\\\""'),
        (b"\x00\xff", DType.STRING, 'b"\\x00\\xff"'),
        (b"a\nb", DType.STRING, 'b"a\\x0ab"'),
    ],
)
def test_show(value, dtype, text):
    assert tensor_values.show(value, dtype) == text


@given(st.floats(width=32, allow_nan=False))
def test_float32_reads_back_without_loss(value):
    text = tensor_values.show(value, DType.FLOAT)
    assert struct.pack("<f", float(text)) == struct.pack("<f", value)


@given(st.floats(width=16, allow_nan=False))
def test_half_reads_back_without_loss(value):
    text = tensor_values.show(value, DType.HALF)
    assert struct.pack("<e", float(text)) == struct.pack("<e", value)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_quoting_tells_all_bytes_apart(a, b):
    assert (tensor_values.quoted(a) == tensor_values.quoted(b)) == (a == b)


@pytest.mark.parametrize("dtype", [d for d in DType if d.item_bytes], ids=lambda d: d.tf_name)
def test_to_bytes_undoes_from_bytes(dtype):
    highest = {DType.BOOL: 1, DType.INT2: 1, DType.UINT2: 3}.get(dtype, 7)
    data = bytes(i % (highest + 1) for i in range(6 * dtype.item_bytes))
    assert tensor_values.to_bytes(tensor_values.from_bytes(data, dtype, 6), dtype) == data


def test_value_of_a_constant_in_either_form():
    made = constants.const("c", DType.FLOAT, (2,), struct.pack("<2f", 1.5, -2.0))
    listed = attrs.encode(
        message_class("AttrValue")(tensor=tensor(DType.FLOAT, (2,), float_val=[1.5, -2.0]))
    )
    other = made._replace(attrs={**made.attrs, "value": listed})
    assert constants.value_of(made) == constants.value_of(other)
    words = constants.const("c", DType.STRING, (2,), [b"a", b"b"])
    assert constants.value_of(words) == (DType.STRING, (2,), (b"a", b"b"))
