"""What EnableNetworkIsolation and VpcConfig mean where containers are processes of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import clary
from clary.core.containers import Network
from clary.engines.launcher import Isolation
from clary.errors import LaunchFailure

_SWITCHES = (
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces is 0: a larger number allows it"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone is 0: 1 allows it"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor restricts user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile with "
        "`userns` for this Python, allows it",
    ),
)
_NO_NETWORKS = (
    "the model has a VpcConfig, and models of the process engine have no networks but this machine's. Leave VpcConfig "
    "out, accept that with --ignore-vpc, or run Clary with --engine docker, whose [networks] table says what subnets "
    "and security groups stand for"
)


def plan(data: Path, own: Iterable[Path]) -> Isolation:
    """Say what an isolated container does not see, and what of it is its own all the same.

    Name services, buses, container engines and Clary itself listen on sockets in the file system, which a network
    namespace does not close.
    """
    ours = (*own, Path(sys.prefix), Path(sys.base_prefix), *map(Path, clary.__path__))
    hidden = dict.fromkeys(os.path.realpath(place) for place in ("/run", "/var/run", data))
    return {"hidden": list(hidden), "kept": list(dict.fromkeys(os.path.realpath(path) for path in ours))}


def obstacle(trouble: str, system: Path = Path("/proc/sys"), user: int | None = None) -> str:
    """Say why this machine does not let us isolate, and what would; `trouble` is what the attempt came to."""
    why = "in a container itself, Clary needs --privileged or CAP_SYS_ADMIN for this"
    if (os.geteuid() if user is None else user) != 0:
        for switch, value, words in _SWITCHES:
            file = system / switch
            if file.is_file() and file.read_text().strip() == value:
                why = f"{words}; so does running Clary as root"
    return f"EnableNetworkIsolation is not possible on this machine ({trouble}): {why}"


def check(network: Network, trouble: str | None, *, ignore_vpc: bool) -> None:
    """Refuse a container whose network cannot be what it asks for. Raises LaunchFailure(create).

    `trouble` is what stands in the way of isolation. An isolated container has no network that a VPC could be of.
    """
    if network.isolated and trouble is not None:
        raise LaunchFailure("create", trouble)
    if (network.subnets or network.security_groups) and not network.isolated and not ignore_vpc:
        raise LaunchFailure("create", _NO_NETWORKS)
