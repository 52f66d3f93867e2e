"""The container contract over WSGI: `/ping`, `/invocations`, `/execution-parameters`, `/adapters`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .adapters import PATH, Adapters, Hooks, Register
from .messages import Headers, Request, Response
from .scoreboard import Slot
from .wsgi import WsgiApplication


class Model(Protocol):
    """A loaded model; it is asked for one thing at a time."""

    def invoke(self, request: Request) -> Response: ...
    def execution_parameters(self) -> Mapping[str, Any] | None: ...

    @property
    def adapter_hooks(self) -> Hooks | None:
        """What loads adapters; None: the model takes none."""
        ...


class Application(WsgiApplication):
    """One worker's WSGI application around its loaded model.

    Invocations take turns, because scripts are written for AWS's servers, which send a worker one request at a time;
    a worker's threads only keep `/ping` and idle connections alive meanwhile. `leave` is called for an answer after
    which the connection had better be closed: its request had to wait here while another worker was idle.
    """

    def __init__(self, model: Model, slot: Slot, leave: Callable[[], None], register: Register) -> None:
        self._model = model
        self._adapters = Adapters(model.adapter_hooks, register) if model.adapter_hooks else None
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._slot = slot
        self._leave = leave
        self.pending = 0  # invocations read and not yet answered
        self._routes: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Response]]] = {
            "/ping": ("GET", self._ping),
            "/invocations": ("POST", self._invoke),
            "/execution-parameters": ("GET", self._execution_parameters),
        }

    def respond(self, environ: Mapping[str, Any]) -> Response:
        if self._adapters is not None and environ["PATH_INFO"].startswith(PATH):
            with self._turn:
                return self._adapters.respond(
                    environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["wsgi.input"].read()
                )
        if environ["PATH_INFO"] not in self._routes:
            return Response.text(404, f"no such path: {environ['PATH_INFO']}")
        method, handler = self._routes[environ["PATH_INFO"]]
        if environ["REQUEST_METHOD"] != method:
            return Response(405, headers={"Allow": method})
        return handler(environ)

    def _ping(self, environ: Mapping[str, Any]) -> Response:
        return Response(200)

    def _invoke(self, environ: Mapping[str, Any]) -> Response:
        request = Request(Headers.from_environ(environ), environ["wsgi.input"].read())
        with self._counting:
            waits = self.pending > 0
            self.pending += 1
        try:
            with self._turn:
                return self._serve(request)
        finally:
            with self._counting:
                self.pending -= 1
            if waits and self._slot.others_idle():
                self._leave()

    def _serve(self, request: Request) -> Response:
        self._slot.busy()
        try:
            if self._adapters is not None and (refusal := self._adapters.refusal(request)) is not None:
                return refusal
            return self._model.invoke(request)
        finally:
            self._slot.idle()

    def _execution_parameters(self, environ: Mapping[str, Any]) -> Response:
        with self._turn:
            parameters = self._model.execution_parameters()
        if parameters is None:
            return Response.text(404, "the script defines no execution_parameters_fn")
        return Response(200, json.dumps(parameters).encode(), {"Content-Type": "application/json"})
