"""safetensors in plain Python and NumPy: bytes to arrays and back, for the tests.

    body = tensors.dump({"keys": keys, "values": values}, {"request": json.dumps({"ids": ids})})
    arrays, metadata = tensors.load(reply.body)

`load` is as strict as the format is, so that a reply which only looks like it
fails the test. `dump` can be told to write what no writer should (`header`), and
knows BF16, which NumPy does not have: give `bfloat16(array)`.
"""
import json
import struct

import numpy

MEDIA_TYPE = "application/x-safetensors"

NAMES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
         "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1"}


class BFloat16:
    """The upper halves of float32, rounded to nearest even."""

    def __init__(self, array):
        single = numpy.ascontiguousarray(array, "<f4")
        bits = single.view("<u4").astype(numpy.uint64)
        self.bits = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("<u2")
        self.shape = single.shape

    def numbers(self):
        """What it stands for, as float32."""
        return (self.bits.astype("<u4") << 16).view("<f4").reshape(self.shape)


def bfloat16(array):
    return BFloat16(array)


def _encode(array):
    if isinstance(array, BFloat16):
        return "BF16", list(array.shape), array.bits.tobytes()
    array = numpy.asarray(array)
    kind = array.dtype.newbyteorder("<")
    for name, code in NAMES.items():
        if numpy.dtype(code) == kind:
            return name, list(array.shape), array.astype(code).tobytes("C")
    raise ValueError(f"safetensors have no {array.dtype}")


def dump(arrays, metadata=None, header=None):
    """`header`, if given, gets the header's dictionary and returns what is written
    in its place: another dictionary, or bytes."""
    table, data = {}, b""
    if metadata is not None:
        table["__metadata__"] = metadata
    for name, array in arrays.items():
        dtype, shape, encoded = _encode(array)
        table[name] = {"dtype": dtype, "shape": shape,
                       "data_offsets": [len(data), len(data) + len(encoded)]}
        data += encoded
    text = header(table) if header else table
    if not isinstance(text, bytes):
        text = json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _no_twins(pairs):
    table = dict(pairs)
    assert len(table) == len(pairs), "a name comes twice"
    return table


def load(body):
    """(arrays by name, metadata). AssertionError where the format is broken."""
    assert len(body) >= 8, "no length"
    length, = struct.unpack("<Q", body[:8])
    assert length <= len(body) - 8 and length <= 100_000_000, "the header is too long"
    text, data = body[8:8 + length], body[8 + length:]
    assert text.startswith(b"{"), "the header does not begin with {"
    table = json.loads(text.decode("utf-8"), object_pairs_hook=_no_twins)
    metadata = table.pop("__metadata__", {})
    assert all(isinstance(text, str) for text in metadata.values())
    arrays, spans = {}, []
    for name, entry in table.items():
        assert set(entry) == {"dtype", "shape", "data_offsets"}, entry
        begin, end = entry["data_offsets"]
        array = numpy.frombuffer(data[begin:end], NAMES[entry["dtype"]])
        arrays[name] = array.reshape(entry["shape"])
        spans.append((begin, end))
    at = 0
    for begin, end in sorted(spans):
        assert begin == at and end >= begin, "a hole or an overlap"
        at = end
    assert at == len(data), "bytes that belong to no tensor"
    return arrays, metadata
