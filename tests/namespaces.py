"""A network and processes of a command's own: whatever it starts, opens or sets up ends with it, also when killed."""

from __future__ import annotations

import os
import shutil


def missing() -> str | None:
    """Say why there can be none here; None: there can."""
    if os.geteuid() == 0 and all(map(shutil.which, ("setpriv", "unshare", "ip"))):
        return None
    return "namespaces take root, setpriv, unshare and ip"


def apart(*command: str) -> list[str]:
    """Give what runs a command there, with a loopback and nothing else; mounts are its own too."""
    # The shell is the first process of the namespace: it collects what nobody else does.
    first = ["sh", "-c", 'ip link set lo up && "$@"; exit $?', "init"]
    world = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    return ["setpriv", "--pdeathsig", "KILL", *world, *first, *command]
