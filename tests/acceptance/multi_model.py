"""A multi-model server of nothing but the standard library, under the containers' API, for tests."""

from __future__ import annotations

SERVER = '''#!/usr/bin/env python3
"""Loads as many models as MODELS says, each from weight.txt in its directory; more are 507, as with no memory."""
import collections, http.server, json, os, re, sys, threading, time
from urllib.parse import parse_qs, urlsplit

MOST = int(os.environ.get("MODELS", "1000000"))
LOCK = threading.Lock()
MODELS, LOADS = {}, collections.Counter()


def load(asked):
    name, url = asked["model_name"], asked["url"]
    with LOCK:
        if name in MODELS:
            return 409, {"message": "already loaded"}
        if len(MODELS) >= MOST:
            MODELS[name] = None  # a zombie, as multi-model-server leaves one
            return 507, {"code": 507, "message": "Out of resources"}
    try:
        with open(os.path.join(url, "weight.txt")) as file:
            weight = file.read()
    except OSError as error:
        return 404, {"message": str(error)}
    if weight == "broken":
        with LOCK:
            MODELS[name] = None
        return 500, {"message": "the model is broken"}
    if weight.startswith("slow"):
        time.sleep(float(weight.split()[1]))
    with LOCK:
        LOADS[name] += 1
        MODELS[name] = weight
    print("loaded", name, weight, flush=True)
    return 200, {"status": "Workers scaled"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: in two, the second would wait for the first's acknowledgement

    def do_GET(self):
        path = urlsplit(self.path)
        if path.path == "/ping":
            return self.answer(200, {})
        if path.path == "/models":
            names = sorted(MODELS)
            first = int(parse_qs(path.query).get("next_page_token", ["0"])[0])
            page = [{"modelName": n, "modelUrl": "/opt/ml/models/%s/model" % n} for n in names[first:first + 100]]
            more = {"nextPageToken": str(first + 100)} if first + 100 < len(names) else {}
            return self.answer(200, {"models": page, **more})
        name = path.path.split("/")[2]
        self.answer(200 if MODELS.get(name) is not None else 404, {"modelName": name})

    def do_DELETE(self):
        with LOCK:
            there = MODELS.pop(self.path.split("/")[2], 0) != 0
        self.answer(200 if there else 404, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/models":
            return self.answer(*load(json.loads(body)))
        name = self.path.split("/")[2]
        if name not in MODELS:
            return self.answer(404, {"message": "not loaded"})
        if MODELS[name] is None:
            return self.answer(503, {"message": "a zombie"})
        if body == b"forget":  # as if the server had dropped it by itself
            del MODELS[name]
            return self.answer(200, {})
        if body == b"die":
            os._exit(9)
        if body == b"no such row":
            return self.answer(404, {"message": "no such row"})
        if body == b"no memory":
            return self.answer(507, {"message": "CUDA out of memory"})
        if body.startswith(b"sleep"):
            time.sleep(float(body[5:]))
        self.answer(200, {"weight": MODELS[name], "got": body.decode(), "pid": os.getpid(), "loaded": len(MODELS),
                          "loads": LOADS[name], "target": self.headers["X-Amzn-SageMaker-Target-Model"],
                          "path": self.path, "multi": os.environ.get("SAGEMAKER_MULTI_MODEL")})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


Server((os.environ.get("HOST", "127.0.0.1"), int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
'''
