from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from typing import Any

from clary.serving.adapters import Register
from clary.serving.app import Application
from clary.serving.messages import Request, Response
from clary.serving.scoreboard import Scoreboard


class Echo:
    """Answers with what it was asked; `gate` holds every answer back until it is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.at_once = 0
        self.most_at_once = 0

    def invoke(self, request: Request) -> Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.release()
        self.gate.wait()
        self.at_once -= 1
        if request.body == b"odd":
            return Response(299)
        if request.body == b"nothing":
            return Response(204)
        return Response(200, request.body, {"Content-Type": request.headers.get("content-type", "none")})

    adapter_hooks = None

    def execution_parameters(self) -> Mapping[str, Any] | None:
        raise RuntimeError("no parameters today")


def ask(
    app: Application, method: str, path: str, body: bytes = b"", **environ: str
) -> tuple[str, dict[str, str], bytes]:
    answer: list[Any] = []
    request = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body), **environ}
    parts = app(request, lambda status, headers: answer.extend((status, dict(headers))))
    return answer[0], answer[1], b"".join(parts)


def build(model: Echo, workers: int = 2) -> tuple[Application, Scoreboard, list[None]]:
    board = Scoreboard(workers)
    left: list[None] = []
    return Application(model, board.take(set()), lambda: left.append(None), Register()), board, left


def test_an_invocation_carries_body_and_type() -> None:
    app, _, _ = build(Echo())
    assert ask(app, "POST", "/invocations", b"12", CONTENT_TYPE="text/csv") == (
        "200 OK",
        {"Content-Type": "text/csv", "Content-Length": "2"},
        b"12",
    )


def test_statuses_without_a_body_or_a_name() -> None:
    app, _, _ = build(Echo())
    assert ask(app, "POST", "/invocations", b"nothing")[:2] == ("204 No Content", {})
    assert ask(app, "POST", "/invocations", b"odd")[0] == "299 Unknown"


def test_a_wrong_method_is_told_the_right_one() -> None:
    app, _, _ = build(Echo())
    assert ask(app, "PUT", "/invocations")[:2] == ("405 Method Not Allowed", {"Allow": "POST", "Content-Length": "0"})


def test_what_the_model_raises_is_a_500_with_a_traceback() -> None:
    app, _, _ = build(Echo())
    status, _, body = ask(app, "GET", "/execution-parameters")
    assert status == "500 Internal Server Error"
    assert body.startswith(b"no parameters today\nTraceback")


class TestTurns:
    def contend(self, model: Echo, app: Application) -> None:
        """Send two invocations, the second while the first is under way, then let both finish."""
        model.gate.clear()
        threads = [threading.Thread(target=ask, args=(app, "POST", "/invocations")) for _ in range(2)]
        threads[0].start()
        model.entered.acquire()
        threads[1].start()
        while app.pending < 2:
            threading.Event().wait(0.001)
        assert ask(app, "GET", "/ping")[0] == "200 OK"
        model.gate.set()
        for thread in threads:
            thread.join()

    def test_one_invocation_at_a_time_and_ping_meanwhile(self) -> None:
        model = Echo()
        app, _, _ = build(model)
        self.contend(model, app)
        assert model.most_at_once == 1

    def test_a_connection_that_waited_leaves_when_another_worker_is_idle(self) -> None:
        model = Echo()
        app, board, left = build(model)
        other = board.take({0})
        other.idle()
        self.contend(model, app)
        assert len(left) == 1

    def test_it_stays_when_all_are_busy_or_still_loading(self) -> None:
        model = Echo()
        app, board, left = build(model, workers=3)
        board.take({0}).busy()
        board.take({0, 1})
        self.contend(model, app)
        assert left == []
