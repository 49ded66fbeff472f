"""The tests' own safetensors (tensors.py) against the format's reference, where
that is installed, and against itself where it isn't."""
import struct

import numpy
import pytest

import tensors

ARRAYS = {
    "keys": numpy.arange(12, dtype=numpy.float32).reshape(3, 4),
    "values": numpy.array([[0.1], [-2.5], [1e30]], dtype=numpy.float64),
    "half": numpy.array([1, -0.5], dtype=numpy.float16),
    "none": numpy.zeros((0, 5), dtype=numpy.float32),
    "one": numpy.array(7, dtype=numpy.int64),
}
METADATA = {"request": '{"ids":["\u00e4","b\\"c"]}', "format": "pt"}


def same(loaded, expected):
    assert set(loaded) == set(expected)
    for name, array in expected.items():
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape, name
        assert loaded[name].tobytes() == array.tobytes(), name


def test_there_and_back():
    arrays, metadata = tensors.load(tensors.dump(ARRAYS, METADATA))
    same(arrays, ARRAYS)
    assert metadata == METADATA
    assert tensors.load(tensors.dump({})) == ({}, {})


def test_bytes():
    """To the byte, as the format's own example is laid out."""
    body = tensors.dump({"a": numpy.array([1], dtype=numpy.float32)})
    text = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    text += b" " * (-len(text) % 8)
    assert body == struct.pack("<Q", len(text)) + text + b"\0\0\x80\x3f"


def test_bfloat16():
    numbers = numpy.array([1, 1.00390625, 1.01171875, -3.140625, 0], dtype=numpy.float32)
    assert tensors.bfloat16(numbers).numbers().tolist() == [1, 1, 1.015625, -3.140625, 0]


@pytest.mark.parametrize("damage", [
    lambda body: body[:7],
    lambda body: body[:-1],
    lambda body: body + b"\0",
    lambda body: b"\xff" * 8 + body[8:],
    lambda body: body.replace(b"[0,4]", b"[1,5]"),
    lambda body: body.replace(b'"shape"', b'"shaqe"'),
])
def test_damaged(damage):
    body = tensors.dump({"a": numpy.array([1], dtype=numpy.float32)})
    with pytest.raises((AssertionError, ValueError)):
        tensors.load(damage(body))


def test_reference():
    reference = pytest.importorskip("safetensors.numpy")
    same(reference.load(tensors.dump(ARRAYS, METADATA)), ARRAYS)
    arrays, metadata = tensors.load(reference.save(ARRAYS, METADATA))
    same(arrays, ARRAYS)
    assert metadata == METADATA
