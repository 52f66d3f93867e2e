"""The life of a model process: load one model, answer its socket one request at a time, leave when nobody needs it.

It has its module paths, its imports and its crashes to itself. Two files with the same name in two models never meet.
"""

from __future__ import annotations

import os
import re
import resource
import select
import socket
import sys
import traceback
from pathlib import Path

from ..app import Model
from ..layout import LayoutError
from ..loading import load_model
from ..messages import Request, Response
from ..script import is_out_of_memory
from .exchange import LONGEST_MESSAGE, packet, receive_request, send_response

# Of loading, beside 0 of what serves: a tenth of its share of a CPU that both want.
_LOADING_NICE = 10
_CAP_SYS_NICE = 1 << 23
# Whom the kernel ends first when memory is short: what is loading before what has loaded, and both before the rest.
_EXPENDABLE, _LESS_SO = 1000, 500


def host(name: str, url: str, listener: socket.socket, line: socket.socket) -> int:
    """Be the process of a model whose files are in `url`; give the status to exit with.

    What became of the load is said on `line`; its end, or the keeper's, is the sign to answer what waits and to leave.
    """
    os.environ["SM_MODEL_DIR"] = url
    _offer(_EXPENDABLE)
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    yields = _may_return_to(usual)
    if yields:
        os.nice(_LOADING_NICE)
    try:
        model = load_model(os.environ)
    except (Exception, SystemExit) as error:
        line.send(packet(_why_not(name, url, error)))
        return 1
    if yields:  # with all threads, and programs, that the script has started
        os.setpriority(os.PRIO_PGRP, 0, usual)
    _offer(_LESS_SO)
    line.send(packet({"status": 200}))
    _answer_all(model, listener, line)
    return 0


def _why_not(name: str, url: str, error: BaseException) -> dict[str, object]:
    if isinstance(error, LayoutError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    if isinstance(error, ImportError) and (Path(url) / "code" / "requirements.txt").is_file():
        text += "code/requirements.txt is not installed: the models of a multi-model container share its environment.\n"
    print(f"Model {name} could not be loaded.\n{text}", file=sys.stderr, flush=True)  # noqa: T201 - stderr is the log
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE // 2]}\n...\n{text[-LONGEST_MESSAGE // 2 :]}"
    return {"status": 507 if is_out_of_memory(error) else 500, "message": text}


def _may_return_to(priority: int) -> bool:
    """Tell whether this process could have its priority back once it had given it up."""
    capabilities = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    privileged = capabilities is not None and bool(int(capabilities[1], 16) & _CAP_SYS_NICE)
    return privileged or resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - priority


def _offer(score: int) -> None:
    Path("/proc/self/oom_score_adj").write_text(str(score))


def _answer_all(model: Model, listener: socket.socket, line: socket.socket) -> None:
    """Answer whoever connects, one request at a time, until nobody needs the model and nothing is waiting for it.

    The front keeps a connection as long as it wants to, where there is no other process of this model.
    """
    events = select.poll()  # select.select fails where files have large numbers, and there are many models
    events.register(listener, select.POLLIN)
    events.register(line, select.POLLIN)
    listener.setblocking(False)
    kept: dict[int, socket.socket] = {}
    leaving = False
    while True:
        ready = {number for number, _ in events.poll(0 if leaving else None)}
        leaving = leaving or line.fileno() in ready
        answered = False
        for number in ready & kept.keys():
            if _answer(model, kept[number]):
                answered = True
            else:
                events.unregister(number)
                kept.pop(number).close()
        if (leaving or listener.fileno() in ready) and (connection := _accepted(listener)) is not None:
            answered = True
            if _answer(model, connection):
                events.register(connection, select.POLLIN)
                kept[connection.fileno()] = connection
            else:
                connection.close()
        if leaving and not answered:
            return


def _accepted(listener: socket.socket) -> socket.socket | None:
    try:
        connection, _ = listener.accept()
    except BlockingIOError:  # nobody, or another process of this model took it
        return None
    connection.setblocking(True)
    return connection


def _answer(model: Model, connection: socket.socket) -> bool:
    """Answer a request; False where the front is at the end of the connection."""
    try:
        send_response(connection, _invoke(model, receive_request(connection)))
    except (EOFError, ConnectionError):
        return False  # the front went away; nobody is there to be told
    return True


def _invoke(model: Model, request: Request) -> Response:
    try:
        return model.invoke(request)
    except (Exception, SystemExit) as error:
        response = Response.of_exception(error)
        return Response(507, response.body, response.headers) if is_out_of_memory(error) else response
