"""What Docker has lost sight of.

A dockerd that is killed after it has started a container, and before it has written that down, takes it afterwards for
one that was never started: it shows and stops none of its processes, and removes the container from under them.
"""

from __future__ import annotations

import contextlib
import os
import signal

from clary.engines.docker import groups
from clary.engines.posix import PROC


def end(container_id: str) -> int:
    """Kill what runs in the control groups of a container that Docker has removed; give how many processes that were.

    As far as they are this machine's, and we may.
    """
    killed = 0
    for number in groups.members(container_id):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            process = os.pidfd_open(number)
            try:
                if groups.holds(container_id, PROC / str(number)):  # and nobody else has its number since
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    killed += 1
            finally:
                os.close(process)
    return killed
