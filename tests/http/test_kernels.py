"""The kernels' variants: each that this CPU can run answers as NumPy does and says
its name; one that it can't run is refused at start in one line that names the others."""

import re

import numpy as np
import pytest

import harness
import oracle


def runnable():
    return [name for name in harness.KERNEL_VARIANTS if harness.kernels_refusal(name) is None]


def check_answers(daemon):
    generator = np.random.default_rng(5)
    for rows, dim, batch in ((1, 3, 1), (70, 17, 9), (700, 64, 33)):
        keys = generator.standard_normal((rows, dim)).astype(np.float32)
        values = generator.standard_normal((rows, 21)).astype(np.float32)
        queries = generator.standard_normal((batch, dim)).astype(np.float32)
        path = f"/v1/memories/kernels-{rows}"
        assert daemon.put(path, {"keys": keys.tolist(), "values": values.tolist()}).status == 201
        for score, normalization in (("scaled_dot", "softmax"), ("cosine", "softmax"), ("gaussian", "sum"),
                                     ("euclidean", "softmax"), ("scaled_dot", "sparsemax")):
            body = {"queries": queries.tolist(), "score": score, "normalization": normalization}
            reply = daemon.post(path + "/attend", body).json
            expected = oracle.attend(queries, keys, values, score, normalization)
            what = (rows, score, normalization)
            assert np.abs(np.array(reply["weights"]) - expected.weights).max() <= 1e-5, what
            bound = 1e-5 * np.abs(values).max() + 1e-6
            assert np.abs(np.array(reply["outputs"]) - expected.outputs).max() <= bound, what


@pytest.mark.parametrize("name", ("auto",) + harness.KERNEL_VARIANTS)
def test_answers(start_daemon, name):
    if name != "auto" and harness.kernels_refusal(name):
        pytest.skip(f"this CPU can't run {name}")
    daemon = start_daemon("--kernels", name)
    said = re.search(r'attentiond_build_info\{[^}]*kernels="(\w+)"', daemon.request("GET", "/metrics").text)
    assert said.group(1) == (name if name != "auto" else runnable()[-1])
    check_answers(daemon)


def test_what_the_cpu_lacks_stops_the_start():
    can = runnable()
    assert can[0] == "portable"
    lacking = [name for name in harness.KERNEL_VARIANTS if name not in can]
    assert lacking, "no CPU has both avx2 and neon"
    for name in lacking:
        said = harness.kernels_refusal(name)
        assert "\n" not in said and f'"{name}"' in said, said
        assert said.endswith("auto, " + ", ".join(can)), said
    assert harness.run_daemon("--kernels", lacking[0], "--check-config").returncode == 0
