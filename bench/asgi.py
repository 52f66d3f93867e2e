"""What one writes first: a reverse proxy of an ASGI framework and a client library, on uvicorn at its fastest.

asgi.py PORT BACKEND_PORT ECHO_PORT      (needs starlette, httpx, uvicorn, uvloop, httptools)
"""

from __future__ import annotations

import sys

import httpx  # type: ignore[import-not-found]
import uvicorn
from starlette.applications import Starlette  # type: ignore[import-not-found]
from starlette.requests import Request  # type: ignore[import-not-found]
from starlette.responses import StreamingResponse  # type: ignore[import-not-found]
from starlette.routing import Route  # type: ignore[import-not-found]

PORTS = {"demo": sys.argv[2], "echo": sys.argv[3]}
client = httpx.AsyncClient(limits=httpx.Limits(max_connections=1024, max_keepalive_connections=1024), trust_env=False)


async def invoke(request: Request) -> StreamingResponse:
    url = f"http://127.0.0.1:{PORTS[request.path_params['name']]}/invocations"
    headers = {"content-type": request.headers.get("content-type", "")}
    sent = client.build_request("POST", url, headers=headers, content=await request.body())
    answer = await client.send(sent, stream=True)
    kept = {name: value for name, value in answer.headers.items() if name in ("content-type", "content-length")}
    return StreamingResponse(answer.aiter_raw(), answer.status_code, kept)


if __name__ == "__main__":
    app = Starlette(routes=[Route("/endpoints/{name}/invocations", invoke, methods=["POST"])])
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="error", access_log=False)
