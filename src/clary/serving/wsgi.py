"""WSGI around a function from a request's environment to a Response: statuses, lengths, what an exception becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from .messages import Response

StartResponse = Callable[[str, "list[tuple[str, str]]"], object]


class WsgiApplication(ABC):
    """What gunicorn calls."""

    @abstractmethod
    def respond(self, environ: Mapping[str, Any]) -> Response:
        """Say what to answer."""

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        response = self._answer(environ)
        fields = {**response.headers, "Content-Length": str(len(response.body))}
        if response.status == HTTPStatus.NO_CONTENT:
            del fields["Content-Length"]
        start_response(_status_line(response.status), list(fields.items()))
        return [response.body]

    def _answer(self, environ: Mapping[str, Any]) -> Response:
        try:
            return self.respond(environ)
        except (Exception, SystemExit) as error:  # a script that calls exit() must not end the worker in silence
            return Response.of_exception(error)


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:  # a script may set any number
        return f"{status} Unknown"
