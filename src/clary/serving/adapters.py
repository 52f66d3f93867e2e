"""Adapters (LoRA and the like) that the platform registers while a model serves, at `/adapters`.

What is registered is in a file in memory that all workers of a server share since before they were forked. Each worker
brings its own copy of the model in line with it before its next invocation: one is told, all have it. Loading and
unloading are the script's: `load_adapter_fn(model, name, adapter_dir)` and `unload_adapter_fn(model, name)`; an
invocation says in `X-Amzn-SageMaker-Adapter-Identifier` which adapter it wants.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .messages import Request, Response

HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
PATH = "/adapters"
_COUNTER = 8
"""The file begins with the number of its changes, in as many bytes."""


@dataclass(frozen=True)
class Hooks:
    """A script's functions, and the model that they change."""

    model: Any
    load: Callable[[Any, str, str], object]
    unload: Callable[[Any, str], object]


class Register:
    """Where the files of each adapter of a server are, by its name."""

    def __init__(self) -> None:
        self._file = os.memfd_create("adapters")  # open as long as the server lives
        self._lock = threading.Lock()  # that of the file is between processes

    @property
    def version(self) -> bytes:
        """Give what is another after each change."""
        return os.pread(self._file, _COUNTER, 0)

    @contextmanager
    def locked(self) -> Iterator[dict[str, str]]:
        """Keep the others away, and give the content; what was changed in it is written unless something is raised."""
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                before, content = self._read(), self._read()
                yield content
                if content != before:
                    self._write(content)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _read(self) -> dict[str, str]:
        length = os.fstat(self._file).st_size
        content: dict[str, str] = json.loads(os.pread(self._file, length, _COUNTER) or b"{}")
        return content

    def _write(self, content: Mapping[str, str]) -> None:
        counter = int.from_bytes(self.version, "big") + 1
        text = counter.to_bytes(_COUNTER, "big") + json.dumps(content).encode()
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))


class Adapters:
    """One worker's adapters. Not for several threads at once: the script's functions change the model."""

    def __init__(self, hooks: Hooks, register: Register) -> None:
        self._hooks = hooks
        self._register = register
        self._loaded: dict[str, str] = {}
        self._version = b""

    def respond(self, method: str, path: str, body: bytes) -> Response:
        """Answer a request about adapters."""
        name = path[len(PATH) + 1 :]
        if method == "POST" and not name:
            return self._add(body)
        if method == "GET":
            return self._show(name)
        if method == "DELETE" and name:
            return self._remove(name)
        return Response(405, headers={"Allow": "GET, DELETE" if name else "GET, POST"})

    def refusal(self, request: Request) -> Response | None:
        """Bring the model in line with what is registered, and say so where the request names what is not."""
        if self._version != self._register.version:
            with self._register.locked() as registered:
                self._follow(registered)
        name = request.headers.get(HEADER)
        return _unknown(name) if name and name not in self._loaded else None

    def _add(self, body: bytes) -> Response:
        try:
            asked = json.loads(body)
            name, source = asked["name"], asked["src"]
        except (ValueError, LookupError, TypeError):
            return Response.text(400, 'The body must be JSON with "name" and "src".')
        if not (isinstance(name, str) and isinstance(source, str) and name and "/" not in name):
            return Response.text(400, '"name" and "src" must be text, and a name has no slash.')
        with self._register.locked() as registered:
            self._follow({**registered, name: source})  # where this raises, nothing is registered
            registered[name] = source
        return Response.text(200, f"Adapter {name} registered")

    def _remove(self, name: str) -> Response:
        with self._register.locked() as registered:
            if registered.pop(name, None) is None:
                return _unknown(name)
            self._follow(registered)
        return Response.text(200, f"Adapter {name} unregistered")

    def _show(self, name: str) -> Response:
        with self._register.locked() as registered:
            shown = [{"name": each, "src": registered[each]} for each in sorted(registered) if name in ("", each)]
        if name and not shown:
            return _unknown(name)
        text = json.dumps(shown[0] if name else {"adapters": shown})
        return Response(200, text.encode(), {"Content-Type": "application/json"})

    def _follow(self, registered: Mapping[str, str]) -> None:
        for name in [each for each, source in self._loaded.items() if registered.get(each) != source]:
            self._hooks.unload(self._hooks.model, name)
            del self._loaded[name]
        for name in registered.keys() - self._loaded.keys():
            self._hooks.load(self._hooks.model, name, registered[name])
            self._loaded[name] = registered[name]
        self._version = self._register.version


def _unknown(name: str) -> Response:
    return Response.text(404, f"Adapter {name} is not registered")
