"""Who listens where on TCP, as Linux shows it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from clary.engines.posix import PROC

_LISTENS = "0A"


class Listening(NamedTuple):
    """A socket that listens. `inode` names it in its network namespace's tables and among a process's open files."""

    address: str
    port: int
    inode: str

    @property
    def place(self) -> str:
        """`127.0.0.1:8080`, `[::]:8080`."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def listening(process: Path = PROC) -> Iterator[Listening]:
    """Give what listens in our network namespace, or in that of a process; nothing where it is gone."""
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        rows: list[str] = []
        with suppress(OSError):
            rows = (process / "net" / table).read_text().splitlines()[1:]
        for columns in map(str.split, rows):
            if columns[3] == _LISTENS:
                address, _, port = columns[1].rpartition(":")
                yield Listening(_read(family, address), int(port, 16), columns[9])


def _read(family: int, digits: str) -> str:
    """Read an address: words of 32 bits, each as a number of this machine."""
    words = (int(digits[at : at + 8], 16) for at in range(0, len(digits), 8))
    return socket.inet_ntop(family, b"".join(struct.pack("=I", word) for word in words))


def opened(process: Path) -> set[str]:
    """Give the inodes of the sockets that a process has open; none where it ended since, or is another user's."""
    found = set()
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):  # closed since
                kind, _, inode = str(link.readlink()).partition(":[")
                if kind == "socket":
                    found.add(inode.rstrip("]"))
    return found


def places(pids: Iterable[int]) -> tuple[str, ...]:
    """Give where the processes of a container, all in one network namespace, listen: `127.0.0.1:8080`, ..."""
    processes = [PROC / str(pid) for pid in pids]
    if not processes:
        return ()
    theirs: set[str] = set().union(*map(opened, processes))
    found = {each.place for process in processes for each in listening(process) if each.inode in theirs}
    return tuple(sorted(found))
