"""Run as a program: carries TCP connections from a port of this machine into another network namespace.

`python -I -S forwarder.py <listening fd> <target pidfd> <talk fd> <inside port>`. A socket belongs to the namespace
that it was made in, whoever holds it: the listening one was made in the machine's own, the process then enters the
target's, and every connection that it makes from there on leads to the target's loopback.

It says over the talk socket that it is in (or why not), and forwards once it is told `go`; the end of that socket
instead means that nobody has written down that it runs, so it goes. It listens only from the moment on at which the
target does: until then a connection is refused, as it would be without anything in between. Where the target listens
already, so does the socket that it is given: what connects while it starts waits. It ends with the target.
Imports the standard library alone, because it runs without site-packages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
BACKLOG = 4096
_CHUNK = 256 * 1024
_ROUNDS = 16
"""Chunks that one connection may move before the others have their turn."""
_QUICK, _CALM, _QUICK_FOR = 0.01, 0.05, 5.0
"""Seconds between looks whether the target listens, at first and later; how long is at first."""
_DRAIN = 1.0
"""Seconds for what the target had answered before it ended."""
_LISTENING = "0A"
_RESET = struct.pack("ii", 1, 0)
_ENDING = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


def main() -> None:
    """Enter the namespace, say so, wait for the word, and forward until the target ends."""
    listening, target, talk, port = map(int, sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the target may take its time to end, and is answering meanwhile
    with socket.socket(fileno=talk) as line:
        try:
            enter(target)
        except OSError as error:
            line.sendall(f"{error.errno} {error.strerror}".encode())
            return
        line.sendall(b"in")
        if line.recv(2) != b"go":
            return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.socket(fileno=listening) as listener:
        if wait_for_listener(target, port):
            listener.listen(BACKLOG)
            Forwarder(listener, target, port).run()


def enter(target: int) -> None:
    """Enter the network namespace of a process, by a pidfd; by way of its user namespace where only that is ours."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(target, CLONE_NEWNET) == 0 or libc.setns(target, CLONE_NEWUSER | CLONE_NEWNET) == 0:
        return
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def wait_for_listener(target: int, port: int) -> bool:
    """Return True once something in this namespace listens on a port; False when the target ended before.

    It looks at the kernel's table: to connect again and again would put connections into the target's log.
    """
    started = time.monotonic()
    poll = select.poll()
    poll.register(target, select.POLLIN)
    while not is_listening(port):
        pause = _QUICK if time.monotonic() - started < _QUICK_FOR else _CALM
        if poll.poll(pause * 1000):
            return False
    return True


def is_listening(port: int) -> bool:
    """Tell whether something in our network namespace listens on a TCP port."""
    return port in set(_listening_ports())


def _listening_ports() -> Iterator[int]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), Path(f"/proc/self/net/{table}").open() as lines:
            next(lines)
            for line in lines:
                _, local, _, state, _ = line.split(maxsplit=4)
                if state == _LISTENING:
                    yield int(local.rpartition(":")[2], 16)


class End:
    """One of the two sockets of a connection, and what flows out of it into the other."""

    __slots__ = ("finished", "other", "rest", "socket")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.other: End = self
        self.rest = memoryview(b"")
        """Was read here and did not fit into the other: nothing more is read until it is gone."""
        self.finished = False
        """Nothing more will come from here, and the other knows."""


class Forwarder:
    """Every connection that it accepts is a pair of ends, looked at when the kernel has news of either."""

    def __init__(self, listener: socket.socket, target: int, port: int) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._target = target
        self._port = port
        self._epoll = select.epoll()
        self._ends: dict[int, End] = {}
        self._unfinished: set[End] = set()
        """Have more to move than their turn allowed; the kernel does not tell that again."""
        self._buffer = memoryview(bytearray(_CHUNK))
        self._full = False
        """No descriptor was left for another connection: the next one waits until one has ended."""

    def run(self) -> None:
        """Forward until the target has ended and what it had said has been passed on."""
        self._epoll.register(self._target, select.EPOLLIN)
        self._epoll.register(self._listener, select.EPOLLIN)
        deadline = None
        while deadline is None or (self._ends and time.monotonic() < deadline):
            wait = 0 if self._unfinished else (-1 if deadline is None else 0.05)
            for number, event in self._epoll.poll(wait):
                if (end := self._ends.get(number)) is not None:
                    self._move(end, event)
                elif number == self._target:
                    self._epoll.unregister(self._target)
                    self._epoll.unregister(self._listener)
                    self._listener.close()
                    deadline = time.monotonic() + _DRAIN
                elif number == self._listener.fileno():
                    self._accept()
            waiting, self._unfinished = self._unfinished, set()
            for end in waiting:
                if end.socket.fileno() >= 0:  # or the other's turn was the end of both
                    self._move(end, select.EPOLLRDHUP)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            self._pause()
            return
        try:
            inside = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            client.close()
            self._pause()
            return
        one, two = End(client), End(inside)
        one.other, two.other = two, one
        inside.connect_ex(("127.0.0.1", self._port))  # in progress: what comes of it is an event
        for end in (one, two):
            self._ends[end.socket.fileno()] = end
            self._epoll.register(end.socket, _EVENTS)

    def _pause(self) -> None:
        if not self._full and self._ends:
            self._full = True
            self._epoll.modify(self._listener, 0)

    def _move(self, end: End, event: int) -> None:
        """Move what an event lets move. An error of either end is one of both, as on a direct connection."""
        other = end.other
        try:
            if event & select.EPOLLERR and end.rest:
                raise ConnectionResetError  # what it said has no room at the other, so reading would not notice
            if event & (select.EPOLLIN | _ENDING):
                self._flow(end, other, bool(event & _ENDING))
            if other.rest:
                self._flow(other, end, True)
        except OSError:
            self._close(end, reset=True)
            return
        if end.finished and other.finished:
            self._close(end, reset=False)

    def _flow(self, source: End, sink: End, to_the_end: bool) -> None:
        """Move bytes one way until there are no more, no room, or its turn is over.

        A read that does not fill the buffer was the last one: for what comes later there is another event. Unless
        `to_the_end`: that of the end itself may have been before.
        """
        for _ in range(_ROUNDS):
            try:
                if source.rest:
                    source.rest = source.rest[sink.socket.send(source.rest) :]
                    if source.rest:
                        return
                if source.finished:
                    return
                size = source.socket.recv_into(self._buffer)
            except BlockingIOError:
                return
            if size == 0:
                source.finished = True
                sink.socket.shutdown(socket.SHUT_WR)
                return
            try:
                sent = sink.socket.send(self._buffer[:size])
            except BlockingIOError:
                sent = 0
            if sent < size:
                source.rest = memoryview(bytes(self._buffer[sent:size]))  # copied, as the buffer is everybody's
                to_the_end = True
            elif size < _CHUNK and not to_the_end:
                return
        self._unfinished.add(source)

    def _close(self, end: End, *, reset: bool) -> None:
        for each in (end, end.other):
            del self._ends[each.socket.fileno()]
            self._unfinished.discard(each)
            if reset:
                each.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            each.socket.close()
        if self._full and self._listener.fileno() >= 0:
            self._full = False
            self._epoll.modify(self._listener, select.EPOLLIN)


if __name__ == "__main__":
    main()
