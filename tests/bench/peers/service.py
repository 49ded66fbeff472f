"""What the daemon competes with: FastAPI and PyTorch, the same requests and replies.

    PEER_MEMORIES=small:1000x64,... PEER_THREADS=2 uvicorn service:app

Written to be fast, as somebody would who needs it to be: orjson both ways, arrays
through NumPy, no model of the body to validate it against, and the handler on the
event loop, because handing a request to a thread costs more than a small one takes.
"""
import os

import numpy
import orjson
import torch
from fastapi import FastAPI, HTTPException, Request, Response

from contestant import normal

torch.set_num_threads(int(os.environ.get("PEER_THREADS", "1")))
app = FastAPI()


def make_memories(description):
    memories = {}
    for item in filter(None, description.split(",")):
        name, shape = item.split(":")
        rows, dim = map(int, shape.split("x"))
        memories[name] = tuple(torch.from_numpy(normal(seed, rows, dim)) for seed in (1, 2))
    return memories


MEMORIES = make_memories(os.environ.get("PEER_MEMORIES", ""))


@app.get("/healthz")
async def health():
    return {"process": os.getpid()}


@app.post("/v1/memories/{name}/attend")
async def attend(name: str, request: Request):
    if name not in MEMORIES:
        raise HTTPException(404)
    keys, values = MEMORIES[name]
    body = orjson.loads(await request.body())
    queries = torch.from_numpy(numpy.array(body["queries"], dtype=numpy.float32))
    with torch.inference_mode():
        outputs = torch.nn.functional.scaled_dot_product_attention(
            queries[None, None], keys[None, None], values[None, None])[0, 0]
    reply = {"memory": name, "version": 1, "outputs": outputs.numpy()}
    return Response(orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY),
                    media_type="application/json")
