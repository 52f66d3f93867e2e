"""`clary logs`: the files under `<data>/logs/endpoints/<endpoint>/<variant>/<instance id>.log`.

They are read where they lie: logs must be readable while Clary does not run, and after an endpoint is gone.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import click

from clary.cli.connection import data_folder, data_option
from clary.errors import ClaryError

POLL = 0.2
CHUNK = 64 * 1024


class NoLogs(ClaryError):
    """The endpoint has written nothing here."""


@click.command()
@click.argument("endpoint")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is written, until Ctrl-C.")
@click.option("--variant", help="Only this variant's.")
@click.option("--lines", type=click.IntRange(min=0), default=100, show_default=True, help="Last lines of each file.")
@data_option
def logs(endpoint: str, follow: bool, variant: str | None, lines: int, data: Path | None) -> None:
    """Print what an endpoint's containers wrote.

    Each line begins with the container it comes from: `variant/instance`. Logs stay readable after the endpoint
    failed or was deleted.
    """
    root = data_folder(data) / "logs" / "endpoints"
    folder = root / endpoint
    if not follow and not files(folder, variant):
        raise NoLogs(_nothing(root, endpoint, variant))
    shown = {path: show_tail(path, lines) for path in files(folder, variant)}
    if not follow:
        return
    followers = {path: Follower(path, offset) for path, offset in shown.items()}
    try:
        while True:
            for path in files(folder, variant):
                for line in followers.setdefault(path, Follower(path)).new_lines():
                    _print(path, line)
            time.sleep(POLL)
    except KeyboardInterrupt:
        return  # how following ends: not a failure


def files(folder: Path, variant: str | None) -> list[Path]:
    """Give an endpoint's log files, the newest last."""
    found = [path for path in folder.glob("*/*.log") if variant is None or path.parent.name == variant]
    return sorted(found, key=lambda path: (_modified(path), path))


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # rotated away since it was listed


def tail(path: Path, lines: int) -> tuple[list[str], int]:
    """Give the last lines of a file, and the offset after the last complete one of them. Reads from the end."""
    with path.open("rb") as file:
        position = end = file.seek(0, 2)
        data = b""
        while position > 0 and data.count(b"\n") <= lines:
            position = max(0, position - CHUNK)
            file.seek(position)
            data = file.read(end - position)
    complete = data[: data.rfind(b"\n") + 1]
    texts = complete.decode(errors="replace").split("\n")[:-1]
    return list(deque(texts, maxlen=lines)), end - len(data) + len(complete)


def show_tail(path: Path, lines: int) -> int:
    """Print the last lines of a file and give the offset where they end."""
    texts, offset = tail(path, lines)
    for line in texts:
        _print(path, line)
    return offset


class Follower:
    """Reads what is appended to one file, also after it was replaced or cut (rotation)."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._offset = offset
        self._inode: int | None = None

    def new_lines(self) -> Iterator[str]:
        """Give the complete lines written since the last call; none where the file is gone."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            status = os.fstat(file.fileno())
            if self._inode not in (None, status.st_ino) or status.st_size < self._offset:
                self._offset = 0
            self._inode = status.st_ino
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # half a line: the rest is still to come
                self._offset += len(line)
                yield line.decode(errors="replace").rstrip("\n")


def _print(path: Path, line: str) -> None:
    prefix = click.style(f"{path.parent.name}/{path.stem}", fg="cyan")
    click.echo(f"{prefix}  {line}")


def _nothing(root: Path, endpoint: str, variant: str | None) -> str:
    what = f"variant {variant} of endpoint {endpoint}" if variant else f"endpoint {endpoint}"
    known = sorted(path.name for path in root.glob("*") if path.is_dir())
    return f"no logs of {what} under {root}" + (f"; there are logs of: {', '.join(known)}" if known else "")
