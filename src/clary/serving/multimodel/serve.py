"""The start of a multi-model container: the nursery, and from it the keeper and the front."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable

from ..environment import cpus, number
from ..preload import preload
from . import control, memory
from .exchange import packet_pair
from .front import FrontServer
from .keeper import Keeper
from .nursery import Nursery
from .processes import Processes

# Requests are parsed here and answered elsewhere: more workers than this would only take CPUs from the models.
MOST_FRONT_WORKERS = 4


def serve(port: int) -> None:
    """Serve models on 127.0.0.1:`port` until SIGTERM, at first none.

    `SAGEMAKER_MODEL_SERVER_WORKERS` is how many processes each model gets (1), as it is in AWS's server;
    `CLARY_SERVING_MODEL_LOADS` how many models are loaded at once (half of the CPUs).
    """
    # Many models share the CPUs; numerical libraries that each start a thread per CPU would only fight over them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    preload(os.environ.get("CLARY_SERVING_FRAMEWORK") or "none")
    front_workers = min(cpus(), MOST_FRONT_WORKERS)
    processes_each = number("SAGEMAKER_MODEL_SERVER_WORKERS", 1)
    try:
        budget = memory.Budget(memory.for_models(os.environ, helpers=front_workers + 2), processes_each)
    except ValueError as error:
        sys.exit(f"CLARY_SERVING_MODEL_MEMORY_MB and CLARY_SERVING_MEMORY_MB are whole numbers: {error}")
    loads = number("CLARY_SERVING_MODEL_LOADS", max(1, cpus() // 2))
    _allow_many_files()
    # What exists now stays shared: a collection in a process that was forked would else write to all of it.
    gc.collect()
    gc.freeze()
    path = tempfile.mkdtemp(prefix="clary-serving-")
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        front = FrontServer(port, front_workers, folder, processes_each)
        sys.exit(_run(folder, front, lambda made: Keeper(made, folder, budget, processes_each, loads)))
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _run(folder: int, front: FrontServer, keeper: Callable[[Processes], Keeper]) -> int:
    """Fork the keeper and the front, and be the nursery until either has ended; give the status to exit with."""
    listener = control.listen(folder)
    orders_from, orders_to = packet_pair()
    reports_from, reports_to = packet_pair()
    nursery = Nursery(orders_from, reports_to)
    with listener, orders_to, reports_from:
        keeping = nursery.fork(lambda: _keep(keeper, listener, orders_to, reports_from))
    serving = nursery.fork(lambda: _front(front))
    return nursery.run(keeping, serving)


def _keep(
    keeper: Callable[[Processes], Keeper], listener: socket.socket, orders: socket.socket, reports: socket.socket
) -> int:
    async def main() -> None:
        processes = Processes(orders, reports)
        kept = keeper(processes)
        work = {processes.listen(), control.Desk(kept, listener).open(), kept.measure_all()}
        await asyncio.wait([asyncio.ensure_future(each) for each in work], return_when=asyncio.FIRST_COMPLETED)

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the nursery, after the front
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(main())
    return 1


def _front(server: FrontServer) -> int:
    server.run()
    return 0


def _allow_many_files() -> None:
    """Take as many open files as we may: each model holds a few."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
