"""gunicorn around a model: a master and preforked workers, each with its own copy of the model.

A worker loads before it accepts, so nothing, `/ping` included, is answered before there is a model. What cannot load
ends the whole server at once with the traceback on stderr: restarting would only repeat it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
import threading
import traceback
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from .adapters import Register
from .app import Application
from .environment import cpus, flush_lines, number
from .http_server import HttpServer
from .layout import LayoutError
from .loading import load_model
from .preload import preload
from .scoreboard import Scoreboard, Slot

# A thread is taken by each request that waits for its turn, and `/ping` must still find one.
THREADS = 64


class Server(HttpServer):
    """gunicorn's hooks, and what a worker runs."""

    def __init__(self, port: int, workers: int) -> None:
        self._board = Scoreboard(workers)
        self._register = Register()
        self._slot: Slot | None = None
        self._request = threading.local()
        self._reported = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server lives
        super().__init__(
            port,
            workers,
            THREADS,
            pre_fork=self._pre_fork,
            post_fork=self._post_fork,
            pre_request=self._pre_request,
            child_exit=self._child_exit,
        )

    def load(self) -> Application:
        """Load the model in this worker and build its application around it."""
        # Until there is a model there is nothing to end gracefully, and a long load must not outlast a SIGTERM.
        previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            model = load_model(os.environ)
        except (Exception, SystemExit) as error:
            self._report(error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        finally:
            signal.signal(signal.SIGTERM, previous)
        assert self._slot is not None
        self._slot.idle()
        return Application(model, self._slot, self._leave, self._register)

    def _report(self, error: BaseException) -> None:
        """Print why the model does not load: once, although every worker is likely to fail alike.

        The lock makes the other workers wait until the first has printed, since the first to exit ends them all.
        """
        fcntl.lockf(self._reported, fcntl.LOCK_EX)
        if os.fstat(self._reported.fileno()).st_size == 0:
            if isinstance(error, LayoutError):
                print(f"The model could not be loaded.\n{error}", file=sys.stderr)  # noqa: T201 - stderr is the log
            else:
                traceback.print_exception(type(error), error, error.__traceback__)
                print(f"The model could not be loaded: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
            sys.stderr.flush()
            os.write(self._reported.fileno(), b"1")

    def _leave(self) -> None:
        self._request.current.force_close()

    def _pre_request(self, worker: Any, request: Any) -> None:
        # The hook runs in the thread that will answer; WSGI itself gives an application no way to close a connection.
        self._request.current = request

    def _pre_fork(self, arbiter: Any, worker: Any) -> None:
        worker.slot = self._board.take({sibling.slot.index for sibling in arbiter.WORKERS.values()})

    def _post_fork(self, arbiter: Any, worker: Any) -> None:
        self._slot = worker.slot

    def _child_exit(self, arbiter: Any, worker: Any) -> None:
        """End the server when a worker was killed, or crashed, while it was loading."""
        stopping = not arbiter.LISTENERS
        if not stopping and not worker.slot.loaded:
            raise HaltServer("A worker ended while it was loading the model.", Arbiter.WORKER_BOOT_ERROR)


def serve() -> None:
    """Serve the model, or with `SAGEMAKER_MULTI_MODEL` many, on 127.0.0.1:`SAGEMAKER_BIND_TO_PORT` until SIGTERM.

    Exits with 3 where the one model cannot be loaded.
    """
    flush_lines()
    port = number("SAGEMAKER_BIND_TO_PORT", 8080)
    if os.environ.get("SAGEMAKER_MULTI_MODEL"):  # whatever it says: AWS's images look whether it is there
        from .multimodel import serve as multimodel

        multimodel.serve(port)
        return
    workers = number("SAGEMAKER_MODEL_SERVER_WORKERS", cpus())
    # Workers together fill the CPUs; numerical libraries that each start a thread per CPU would only fight over them.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpus() // workers)))
    # Once, before the fork: importing is most of what a small model's start takes, and workers that do it at the same
    # time only hold each other up. The model itself is loaded after the fork: what it starts (threads, a device) would
    # not survive one.
    preload(os.environ.get("CLARY_SERVING_FRAMEWORK") or "none")
    try:
        Server(port, workers).run()
    except HaltServer as halt:
        # Workers that fail at the same moment: gunicorn is halting for the first when it learns of the second.
        sys.exit(halt.exit_status)
