"""Attention pooling in float64 with NumPy, written from the definitions alone.

It shares nothing with the daemon: distances are sums of squared differences,
and sparsemax and entmax15 are solved by bisection of the threshold that makes
the weights add up to 1, not by the sorting algorithms of the papers.

A result tells, beside weights and outputs, which queries the contract lets
fall either way: those that stand within 1e-6 of a tie, at an edge of a kernel,
on a sum that cancels, or on scores beyond +-60. `Result.decided` is false
there. Exact ties of whole-number scores are decided: the lower row wins.
"""

import numpy as np

SCORES = (
    "dot", "scaled_dot", "cosine", "bilinear", "additive", "euclidean", "gaussian",
    "laplacian", "boxcar", "triangular", "epanechnikov", "inverse_distance", "constant", "exact",
)
KERNELS = SCORES[6:]
NORMALIZATIONS = ("softmax", "sum", "none", "hardmax", "sparsemax", "entmax15", "sigmoid")
TAKES_TOP_K = ("softmax", "sum", "sparsemax", "entmax15")
TIE = 1e-6


def default_normalization(score):
    return "sum" if score in KERNELS else "softmax"


class Result:
    """weights [B, m], outputs [B, dv], scores [B, m] and decided [B]."""

    def __init__(self, weights, outputs, scores, decided):
        self.weights, self.outputs, self.scores, self.decided = weights, outputs, scores, decided

    def weight_bounds(self, normalization):
        scale = np.maximum(1.0, np.abs(self.weights)) if unbounded(normalization) else 1.0
        return 1e-5 * np.broadcast_to(scale, self.weights.shape)

    def output_bounds(self, normalization, values):
        total = np.abs(self.weights).sum(axis=1, keepdims=True)
        scale = np.maximum(1.0, total) if unbounded(normalization) else 1.0
        largest = np.abs(np.asarray(values, np.float64)).max()
        return np.broadcast_to((1e-5 * largest + 1e-6) * scale, self.outputs.shape)


def unbounded(normalization):
    """Weights that need not lie in 0..1, or add up to 1."""
    return normalization in ("none", "sigmoid", "sum")


def squared_distances(queries, keys):
    result = np.empty((len(queries), len(keys)))
    for row, query in enumerate(queries):
        difference = keys - query
        result[row] = np.einsum("md,md->m", difference, difference)
    return result


def raw_scores(queries, keys, score):
    """(a, log a or None, undecided [B, m]): log a is there for the kernels
    that `sum` takes in log space."""
    name, given = score["type"], score
    sure = np.zeros((len(queries), len(keys)), bool)
    if name == "dot":
        return queries @ keys.T, None, sure
    if name == "scaled_dot":
        return given.get("scale", 1 / np.sqrt(keys.shape[1])) * (queries @ keys.T), None, sure
    if name == "cosine":
        norms = np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(keys, axis=1))
        cosine = np.divide(queries @ keys.T, norms, out=np.zeros_like(norms), where=norms > 0)
        return given.get("scale", 1.0) * cosine, None, sure
    if name == "bilinear":
        return queries @ f64(given["w"]) @ keys.T, None, sure
    if name == "additive":
        hidden = (queries @ f64(given["w_q"]).T)[:, None, :] + (keys @ f64(given["w_k"]).T)[None]
        return np.tanh(hidden) @ f64(given["v"]), None, sure
    if name == "constant":
        return np.ones(sure.shape), None, sure
    if name == "exact":
        return (queries[:, None, :] == keys[None]).all(axis=2).astype(float), None, sure
    squared = squared_distances(queries, keys)
    distance = np.sqrt(squared)
    if name == "euclidean":
        return -given.get("scale", 1.0) * distance, None, sure
    if name == "gaussian":
        logarithm = -squared / (2 * given.get("sigma", 1.0) ** 2)
        return np.exp(logarithm), logarithm, sure
    if name == "laplacian":
        logarithm = -distance / given.get("sigma", 1.0)
        return np.exp(logarithm), logarithm, sure
    if name == "inverse_distance":
        power, epsilon = given.get("power", 2.0), given.get("epsilon", 1e-6)
        return 1 / (distance**power + epsilon), None, sure
    radius = given.get("radius", 1.0)
    if name == "boxcar":
        at_the_edge = np.abs(distance - radius) <= TIE * radius
        return (distance <= radius).astype(float), None, at_the_edge
    if name == "triangular":
        return np.maximum(0, 1 - distance / radius), None, sure
    if name == "epanechnikov":
        return np.maximum(0, 1 - squared / radius**2), None, sure
    raise ValueError(name)


def kept_by_top_k(order_by, k):
    """The mask of the k largest of each row, the lower index winning a tie."""
    kept = np.zeros(order_by.shape, bool)
    best = np.argsort(-order_by, axis=1, kind="stable")[:, :k]
    np.put_along_axis(kept, best, True, axis=1)
    return kept


def near_tie(values, k):
    """[B]: whether number k and number k+1 of a row nearly tie. Equal whole
    numbers tie exactly and don't count."""
    if k >= values.shape[1]:
        return np.zeros(len(values), bool)
    ordered = -np.sort(-values, axis=1)
    a, b = ordered[:, k - 1], ordered[:, k]
    near = np.abs(a - b) <= TIE * np.maximum(np.abs(a), np.abs(b))
    return near & ~((a == b) & (a == np.round(a)))


def threshold(scores, kept, power):
    """sum_i max(0, x_i - tau)^power = 1, solved for the weights."""
    masked = np.where(kept, scores, -np.inf)
    high = masked.max(axis=1, keepdims=True)
    low = high - 1.0
    for _ in range(120):
        middle = (low + high) / 2
        mass = (np.maximum(0, masked - middle) ** power).sum(axis=1, keepdims=True)
        low, high = np.where(mass >= 1, middle, low), np.where(mass >= 1, high, middle)
    return np.maximum(0, masked - (low + high) / 2) ** power


def normalize(scores, logarithms, normalization):
    """(weights, undecided [B])."""
    name = normalization["type"]
    kept = np.ones(scores.shape, bool)
    undecided = np.zeros(len(scores), bool)
    k = normalization.get("top_k")
    # Where exp() has lost the order of the far keys their logarithms keep it.
    order_by = logarithms if name == "sum" and logarithms is not None else scores
    if k is not None:
        kept = kept_by_top_k(order_by, k)
        undecided = near_tie(order_by, k)
    if name in ("softmax", "sum") and (name == "softmax" or logarithms is not None):
        exponents = scores / normalization.get("temperature", 1.0) if name == "softmax" else logarithms
        exponents = np.where(kept, exponents, -np.inf)
        powers = np.exp(exponents - exponents.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True), undecided
    if name == "sum":
        part = np.where(kept, scores, 0.0)
        total, mass = part.sum(axis=1, keepdims=True), np.abs(part).sum(axis=1, keepdims=True)
        cancels = (np.abs(total) < 1e-3 * mass)[:, 0]
        return np.divide(part, total, out=np.zeros_like(part), where=total != 0), undecided | cancels
    if name == "none":
        return scores.copy(), undecided
    if name == "sigmoid":
        return 1 / (1 + np.exp(-scores)), undecided
    if name == "hardmax":
        return kept_by_top_k(scores, 1).astype(float), near_tie(scores, 1)
    if name == "sparsemax":
        return threshold(scores, kept, 1), undecided
    if name == "entmax15":
        return threshold(scores / 2, kept, 2), undecided
    raise ValueError(name)


def f64(values):
    """The float32 number nearest to each, as float64: what a server that keeps
    float32 has been given."""
    return np.asarray(values, np.float32).astype(np.float64)


def attend(queries, keys, values, score, normalization):
    """Both given as objects or bare strings, as in a request."""
    score = {"type": score} if isinstance(score, str) else score
    normalization = {"type": normalization} if isinstance(normalization, str) else normalization
    queries, keys, values = f64(queries), f64(keys), f64(values)
    scores, logarithms, unsure = raw_scores(queries, keys, score)
    weights, undecided = normalize(scores, logarithms, normalization)
    decided = ~undecided & ~unsure.any(axis=1) & (np.abs(scores) <= 60).all(axis=1)
    return Result(weights, weights @ values, scores, decided)
