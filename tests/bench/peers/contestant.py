"""One way to compute softmax(Q K^T / sqrt(d)) V, in a process of its own.

    contestant.py NAME --threads N [--library flat.so]

Reads commands, one line of JSON each, and answers each with one:

    {"rows": m, "dim": d}            makes the memory
    {"batch": B, "check": true}      the outputs of B queries
    {"batch": B, "seconds": s}       the median seconds of a call

A process each, because several of these libraries let their threads spin for a
while after a call: in one process the next contestant would pay for it. The
same seeds make the same data in each.
"""
import argparse
import ctypes
import json
import math
import statistics
import sys
import time

import numpy

LEAST_CALLS = 5


class Numpy:
    """The obvious way: two matrix products and a softmax in between."""

    def __init__(self, keys, values, _):
        self.keys, self.values = keys, values
        self.scale = numpy.float32(1 / math.sqrt(keys.shape[1]))

    def call(self, queries):
        scores = queries @ self.keys.T
        scores *= self.scale
        scores -= scores.max(axis=1, keepdims=True)
        numpy.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores @ self.values


class Torch:
    """What both ways of PyTorch share."""

    def __init__(self, keys, values, options):
        import torch
        self.torch = torch
        torch.set_num_threads(options.threads)
        self.keys, self.values = torch.from_numpy(keys), torch.from_numpy(values)
        self.scale = 1 / math.sqrt(keys.shape[1])

    def call(self, queries):
        with self.torch.inference_mode():
            return self.compute(self.torch.from_numpy(queries)).numpy()


class TorchSdpa(Torch):
    def compute(self, queries):
        attention = self.torch.nn.functional.scaled_dot_product_attention
        return attention(queries[None, None], self.keys[None, None], self.values[None, None])[0, 0]


class TorchMatmul(Torch):
    """Two products: faster than the above for few queries, which that one
    gives to a single thread."""

    def compute(self, queries):
        scores = self.torch.mm(queries, self.keys.T).mul_(self.scale)
        return self.torch.mm(self.torch.softmax(scores, dim=1), self.values)


class OnnxRuntime:
    """The same graph with the memory as constants, which it packs beforehand."""

    def __init__(self, keys, values, options):
        import onnxruntime
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.model(keys, values), settings,
                                                    providers=["CPUExecutionProvider"])

    @staticmethod
    def model(keys, values):
        from onnx import TensorProto, helper, numpy_helper
        dim = keys.shape[1]
        scaled = numpy.ascontiguousarray(keys.T) / numpy.float32(math.sqrt(dim))
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["queries", "keys"], ["scores"]),
             helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
             helper.make_node("MatMul", ["weights", "values"], ["outputs"])],
            "attention",
            [helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["B", dim])],
            [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["B", dim])],
            [numpy_helper.from_array(scaled, "keys"), numpy_helper.from_array(values, "values")])
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()

    def call(self, queries):
        return self.session.run(None, {"queries": queries})[0]


class Attention:
    """libattention through ctypes."""

    def __init__(self, keys, values, options):
        self.library = ctypes.CDLL(options.library)
        self.library.peer_create.restype = ctypes.c_void_p
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        self.library.peer_create.argtypes = [pointer, pointer, size, size, ctypes.c_uint]
        self.library.peer_attend.argtypes = [pointer, pointer, size, pointer]
        self.library.peer_free.argtypes = [pointer]
        self.peer = self.library.peer_create(keys.ctypes.data, values.ctypes.data, *keys.shape,
                                             options.threads)
        if not self.peer:
            raise MemoryError("peer_create failed")

    def __del__(self):
        self.library.peer_free(self.peer)

    def call(self, queries):
        outputs = numpy.empty_like(queries)
        status = self.library.peer_attend(self.peer, queries.ctypes.data, len(queries),
                                          outputs.ctypes.data)
        if status:
            raise RuntimeError(f"attn_attend failed: {status}")
        return outputs


CONTESTANTS = {"attention": Attention, "numpy": Numpy, "torch_sdpa": TorchSdpa,
               "torch_matmul": TorchMatmul, "onnxruntime": OnnxRuntime}


def normal(seed, rows, dim):
    return numpy.random.default_rng(seed).standard_normal((rows, dim), dtype=numpy.float32)


def median_seconds(call, least_seconds):
    call()
    times, start = [], time.perf_counter()
    while len(times) < LEAST_CALLS or time.perf_counter() - start < least_seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--library")
    options = parser.parse_args()
    contestant, dim = None, 0
    for line in sys.stdin:
        command = json.loads(line)
        if "rows" in command:
            dim = command["dim"]
            contestant = None  # the old memory goes before the new one comes
            contestant = CONTESTANTS[options.name](normal(1, command["rows"], dim),
                                                   normal(2, command["rows"], dim), options)
            answer = None
        else:
            queries = normal(3, command["batch"], dim)
            if "check" in command:
                answer = contestant.call(queries).tolist()
            else:
                answer = median_seconds(lambda: contestant.call(queries), command["seconds"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
