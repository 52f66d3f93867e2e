"""The HTTP side: the contract's paths of a multi-model container, in gunicorn's workers.

An invocation goes straight to the socket of its model; a model that has none is not loaded.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from gunicorn.workers.gthread import ThreadWorker

from ..http_server import HttpServer
from ..messages import Response, fields_of
from ..wsgi import WsgiApplication
from .control import ask
from .keeper import LARGEST_PAGE
from .lines import Lines

# A thread each is held by whoever waits for a model, or for a load; beside them there are idle connections.
THREADS = 1000
CONNECTIONS = 2 * THREADS
# Invocations of one model that one worker lets wait, so that a model that hangs does not take all threads.
QUEUE = 100
LONGEST_NAME = 1024
# Milliseconds for which a thread waits for the next request of its connection.
MOMENT = 5


class Front(WsgiApplication):
    """Answers requests with the help of the sockets in an open folder."""

    def __init__(self, folder: int, processes_each: int) -> None:
        self._folder = folder
        self._lines = Lines(folder, keep=processes_each == 1)
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()

    def respond(self, environ: Mapping[str, Any]) -> Response:
        segments = environ["PATH_INFO"].split("/")[1:]
        method = environ["REQUEST_METHOD"]
        if segments == ["ping"]:
            return self._ping() if method == "GET" else _not_allowed("GET")
        if segments[0] != "models" or len(segments) > 3 or "" in segments[1:]:
            return _error(404, "ResourceNotFoundException", f"Requested resource is not found: {environ['PATH_INFO']}")
        if len(segments) == 1:
            return self._models(method, environ)
        if len(segments) == 2:
            return self._model(method, segments[1])
        if segments[2] != "invoke":
            return _error(404, "ResourceNotFoundException", f"Requested resource is not found: {environ['PATH_INFO']}")
        return self._invoke(segments[1], environ) if method == "POST" else _not_allowed("POST")

    def _ping(self) -> Response:
        """Answer that the server works, with the keeper's help: without it there is no server."""
        try:
            self._ask(do="page", start=0, limit=0)
        except ConnectionError as error:
            return _error(500, "InternalServerException", str(error))
        return Response(200)

    def _models(self, method: str, environ: Mapping[str, Any]) -> Response:
        if method == "GET":
            query = parse_qs(environ.get("QUERY_STRING", ""))
            limit = _whole(query, "limit", LARGEST_PAGE)
            limit = limit if 0 < limit <= LARGEST_PAGE else LARGEST_PAGE
            return self._ask(do="page", start=max(0, _whole(query, "next_page_token", 0)), limit=limit)
        if method != "POST":
            return _not_allowed("GET, POST")
        try:
            body = json.loads(environ["wsgi.input"].read())
        except ValueError as error:
            return _error(400, "BadRequestException", f"The body is not JSON: {error}")
        for member in ("model_name", "url"):
            if not isinstance(body, dict) or not isinstance(body.get(member), str) or not body[member]:
                return _error(400, "BadRequestException", f"Parameter {member} is required.")
            if len(body[member]) > LONGEST_NAME:
                return _error(400, "BadRequestException", f"Parameter {member} is longer than {LONGEST_NAME}.")
        return self._ask(do="load", name=body["model_name"], url=body["url"])

    def _model(self, method: str, name: str) -> Response:
        if method not in ("GET", "DELETE"):
            return _not_allowed("GET, DELETE")
        return self._ask(do="describe" if method == "GET" else "unload", name=name)

    def _invoke(self, name: str, environ: Mapping[str, Any]) -> Response:
        fields, body = fields_of(environ), environ["wsgi.input"].read()
        with self._lock:
            if self._waiting[name] >= QUEUE:
                text = f"No worker is available to serve request for model: {name}: {QUEUE} requests wait for it."
                return _error(503, "ServiceUnavailableException", text)
            self._waiting[name] += 1
        try:
            return self._pass(name, fields, body)
        finally:
            with self._lock:
                self._waiting[name] -= 1
                if not self._waiting[name]:
                    del self._waiting[name]

    def _pass(self, name: str, fields: Mapping[str, str], body: bytes) -> Response:
        try:
            return self._lines.ask(name, fields, body)
        except (FileNotFoundError, ConnectionRefusedError):
            return _error(404, "ModelNotFoundException", f"Model not found: {name}")
        except (EOFError, ConnectionError):
            return _error(500, "InternalServerException", f"Worker died: the process of model {name} has ended.")

    def _ask(self, **question: Any) -> Response:
        return _json(*ask(self._folder, question))


class PatientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Waits a moment for the next request of a connection in the thread that has answered the last one.

    Otherwise another thread hears of it first and has to wake this one; that costs as much as the way to the model.
    """

    def handle(self, conn: Any) -> Any:
        kept = super().handle(conn)
        while kept is True and self.alive and _is_readable(conn.sock):
            kept = super().handle(conn)
        return kept


def _is_readable(connection: socket.socket) -> bool:
    events = select.poll()
    events.register(connection, select.POLLIN)
    return bool(events.poll(MOMENT))


class FrontServer(HttpServer):
    def __init__(self, port: int, workers: int, folder: int, processes_each: int) -> None:
        self._folder = folder
        self._processes_each = processes_each
        super().__init__(port, workers, THREADS, worker_connections=CONNECTIONS, worker_class=PatientWorker)

    def load(self) -> Front:
        return Front(self._folder, self._processes_each)


def _json(status: int, body: Mapping[str, Any]) -> Response:
    return Response(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _error(status: int, type: str, message: str) -> Response:
    return _json(status, {"code": status, "type": type, "message": message})


def _not_allowed(allowed: str) -> Response:
    response = _error(
        405, "MethodNotAllowedException", "Requested method is not allowed, please refer to API document."
    )
    return Response(405, response.body, {**response.headers, "Allow": allowed})


def _whole(query: Mapping[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [""])[0]
    return int(text) if text.isdigit() else default
