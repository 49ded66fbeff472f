"""What the daemon competes with: FastAPI and PyTorch, the same requests and replies.

    PEER_MEMORIES=small:1000x64,... PEER_THREADS=2 uvicorn service:app

Two services. `app` does the same job as the daemon, for what the bench asks: it
says 422 with the place of the fault to unknown members, to what is not a finite
number and to rows of the wrong length. `stripped` takes whatever comes as long
as it can be made an array, which nobody should put on a network.

Both are written to be fast, as somebody would who needs it to be: bytes
straight to pydantic's own parser or to orjson, replies by orjson, arrays through
NumPy, and the handler on the event loop, because handing a request to a thread
costs more than a small one takes.
"""
import os
from typing import Annotated, Literal

import numpy
import orjson
import torch
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contestant import normal

torch.set_num_threads(int(os.environ.get("PEER_THREADS", "1")))
app, stripped = FastAPI(), FastAPI()


def make_memories(description):
    memories = {}
    for item in filter(None, description.split(",")):
        name, shape = item.split(":")
        rows, dim = map(int, shape.split("x"))
        memories[name] = tuple(torch.from_numpy(normal(seed, rows, dim)) for seed in (1, 2))
    return memories


MEMORIES = make_memories(os.environ.get("PEER_MEMORIES", ""))


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Top(Strict):
    top: Annotated[int, Field(ge=1)]


Number = Annotated[float, Field(allow_inf_nan=False)]


class Attend(Strict):
    queries: Annotated[list[list[Number]], Field(min_length=1)]
    score: Literal["scaled_dot"] = "scaled_dot"
    normalization: Literal["softmax"] = "softmax"
    weights: Literal["none", "full"] | Top = "full"


def refuse(fault):
    return Response(orjson.dumps({"detail": fault}), 422, media_type="application/json")


def pair_of(name):
    if name not in MEMORIES:
        raise HTTPException(404)
    return MEMORIES[name]


def outputs_of(queries, keys, values):
    with torch.inference_mode():
        return torch.nn.functional.scaled_dot_product_attention(
            torch.from_numpy(queries)[None, None], keys[None, None], values[None, None])[0, 0]


def weights_of(queries, keys):
    with torch.inference_mode():
        scores = torch.mm(torch.from_numpy(queries), keys.T).div_(keys.shape[1] ** 0.5)
        return torch.softmax(scores, dim=1)


def largest_of(weights, count):
    values, rows = torch.topk(weights, min(count, weights.shape[1]))
    return [[{"row": row, "weight": weight} for row, weight in zip(*pair) if weight != 0]
            for pair in zip(rows.tolist(), values.numpy())]


def reply(name, outputs, **more):
    text = orjson.dumps({"memory": name, "version": 1, "outputs": outputs.numpy(), **more},
                        option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(text, media_type="application/json")


async def health():
    return {"process": os.getpid()}


app.get("/healthz")(health)
stripped.get("/healthz")(health)


@app.post("/v1/memories/{name}/attend")
async def attend(name: str, request: Request):
    keys, values = pair_of(name)
    try:
        body = Attend.model_validate_json(await request.body())
    except ValidationError as fault:
        return refuse(fault.errors(include_url=False, include_input=False, include_context=False))
    dim = keys.shape[1]
    for row, query in enumerate(body.queries):
        if len(query) != dim:
            return refuse([{"loc": ["queries", row],
                            "msg": f"{len(query)} numbers, the keys have {dim}"}])
    with numpy.errstate(over="ignore"):
        queries = numpy.array(body.queries, dtype=numpy.float32)
    if not numpy.isfinite(queries).all():
        row, column = numpy.argwhere(~numpy.isfinite(queries))[0].tolist()
        return refuse([{"loc": ["queries", row, column], "msg": "beyond float32"}])
    outputs = outputs_of(queries, keys, values)
    if body.weights == "none":
        return reply(name, outputs)
    weights = weights_of(queries, keys)
    if body.weights == "full":
        return reply(name, outputs, weights=weights.numpy())
    return reply(name, outputs, weights=largest_of(weights, body.weights.top))


@stripped.post("/v1/memories/{name}/attend")
async def attend_anything(name: str, request: Request):
    keys, values = pair_of(name)
    body = orjson.loads(await request.body())
    queries = numpy.array(body["queries"], dtype=numpy.float32)
    return reply(name, outputs_of(queries, keys, values))
