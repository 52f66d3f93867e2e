"""The sockets that several processes listen on."""

from __future__ import annotations

import contextlib
import socket

BACKLOG = 2048
"""Connections that wait to be accepted."""
_IP_FREEBIND = 15
"""Linux's number, which the socket module does not have."""


def listener(host: str, port: int, *, early: bool = False) -> socket.socket:
    """Bind a socket that several processes may share. Raises OSError where the port is taken by somebody else.

    `early`: the IPv4 address need not be this machine's yet.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        if early:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def free_port(host: str, wanted: int) -> int:
    """Give the wanted port of an IPv4 address, or another one where somebody has that. 0: any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # where a system has no such option the address must be there
            probe.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        try:
            probe.bind((host, wanted))  # without SO_REUSEPORT: another Clary is somebody too
        except OSError:
            probe.bind((host, 0))
        return int(probe.getsockname()[1])
