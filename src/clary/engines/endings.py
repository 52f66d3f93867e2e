"""How a container ended, in the words that every engine has for it."""

from __future__ import annotations

import signal

from clary.engines.cgroups import describe
from clary.engines.instance_types import Limits


def ending(code: int, *, short_of_memory: bool, limits: Limits | None) -> str:
    """Say how a process ended: `code` is its exit code, or a signal's number below zero.

    `short_of_memory`: the kernel killed it, or a process of it, at its memory limit.
    """
    limit = f" (limit {describe(limits.memory)})" if limits else ""
    if code >= 0:
        return f"exited with {code}" + (f", a process of it having been killed for memory{limit}" * short_of_memory)
    if -code == signal.SIGKILL and short_of_memory:
        return f"killed for memory{limit}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # real-time signals have no names
        return f"killed by signal {-code}"
