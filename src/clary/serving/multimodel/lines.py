"""The front's connections to the models, kept open: a new one for each invocation wakes its model twice."""

from __future__ import annotations

import errno
import socket
import threading
from collections import OrderedDict
from collections.abc import Mapping

from ..messages import Response
from .exchange import place, receive_response, send_request
from .keeper import socket_name

# Of one front worker. A model that nobody has asked for a while loses its connection, not more.
MOST_KEPT = 512
# How a request comes back that nobody has taken: the model's side was closed before the request was read. One that a
# model has taken ends without an error instead, and is not sent again.
_NOT_TAKEN = frozenset((errno.EPIPE, errno.ECONNRESET))


class Lines:
    """Asks models by name. `keep`: each has one process, so that no request waits for one that is busy while another
    is not."""

    def __init__(self, folder: int, *, keep: bool) -> None:
        self._folder = folder
        self._most = MOST_KEPT if keep else 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[socket.socket, str] = OrderedDict()
        """The oldest first."""
        self._idle: dict[str, list[socket.socket]] = {}

    def ask(self, name: str, fields: Mapping[str, str], body: bytes) -> Response:
        """Send a request and give the model's answer.

        Raises FileNotFoundError or ConnectionRefusedError where there is no such model, EOFError or another
        ConnectionError where its process ended instead of answering.
        """
        while (kept := self._take(name)) is not None:
            try:
                return self._over(kept, name, fields, body)
            except ConnectionError as error:
                if error.errno not in _NOT_TAKEN:
                    raise
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(place(self._folder, socket_name(name)))
        except OSError:
            connection.close()
            raise
        return self._over(connection, name, fields, body)

    def _over(self, connection: socket.socket, name: str, fields: Mapping[str, str], body: bytes) -> Response:
        try:
            send_request(connection, fields, body)
            response = receive_response(connection)
        except BaseException:
            connection.close()
            raise
        self._keep(connection, name)
        return response

    def _take(self, name: str) -> socket.socket | None:
        with self._lock:
            idle = self._idle.get(name)
            if not idle:
                return None
            connection = idle.pop()
            if not idle:
                del self._idle[name]
            del self._kept[connection]
            return connection

    def _keep(self, connection: socket.socket, name: str) -> None:
        with self._lock:
            self._kept[connection] = name
            self._idle.setdefault(name, []).append(connection)
            if len(self._kept) <= self._most:
                return
            oldest, its = self._kept.popitem(last=False)
            self._idle[its].remove(oldest)
            if not self._idle[its]:
                del self._idle[its]
        oldest.close()

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            kept = list(self._kept)
            self._kept.clear()
            self._idle.clear()
        for connection in kept:
            connection.close()
