"""All groups and streams below one folder. Nothing is kept in memory: any process may look, and several may write."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from clary.logs import names, times
from clary.logs.stream import LogWriter, Stream, last_texts, locked

_RECORD = ".group.json"


@dataclass(frozen=True, slots=True)
class Group:
    """What is known of a group besides its streams. Times in milliseconds since the epoch."""

    name: str
    created: int
    retention: int | None = None
    """Days; None: those of the whole folder."""
    tags: Mapping[str, str] = field(default_factory=dict)
    kms_key: str | None = None
    """As it was given; nothing is encrypted with it."""


class LogFolder:
    """The folder. `now` gives seconds since the epoch."""

    def __init__(self, root: Path, now: Callable[[], float] = time.time) -> None:
        self._root = root
        self._now = now

    # -- writing ------------------------------------------------------------------------------------------------------

    def path(self, group: str, stream: str) -> Path:
        """Give a stream's file, to which a process may append by itself. Raises AwsError for an impossible name."""
        return names.stream_file(self._root, group, stream)

    def ensure(self, group: str, stream: str) -> Path:
        """Make a stream where it does not exist; give its file."""
        self.create_stream(group, stream)
        return self.path(group, stream)

    def writer(self, group: str, stream: str) -> LogWriter:
        """Open a stream for lines whose times are known; it is made where it does not exist."""
        return LogWriter(self.ensure(group, stream))

    def create_stream(self, group: str, stream: str) -> bool:
        """Make a stream; False where there is one."""
        file = self.path(group, stream)
        if Stream(group, stream, file).exists:
            return False
        with contextlib.suppress(FileNotFoundError):  # the folder went, being empty, in this moment
            self._touch(file)
            return True
        self._touch(file)
        return True

    def _touch(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            with locked(descriptor):
                times.append(names.times_file(file), 0, int(self._now() * 1000))
        finally:
            os.close(descriptor)

    # -- looking ------------------------------------------------------------------------------------------------------

    def tail(self, group: str, stream: str, lines: int) -> list[str]:
        """Give the last lines of a stream, a last one without an end included; none where there is no such stream."""
        return last_texts(self.path(group, stream), lines)

    def stream(self, group: str, name: str) -> Stream | None:
        """Give a stream as it is now; None where there is none."""
        found = Stream(group, name, self.path(group, name))
        return found if found.exists else None

    def streams(self, group: str, prefix: str = "") -> list[Stream]:
        """Give the streams of a group by name."""
        return list(self._streams(names.group_folder(self._root, group), group, prefix))

    def _streams(self, folder: Path, group: str, prefix: str = "") -> Iterator[Stream]:
        try:
            files = sorted(folder.glob(f"[!.]*{names.SUFFIX}"), key=names.stream_name)
        except FileNotFoundError:
            return
        for file in files:
            stream = Stream(group, names.stream_name(file), file)
            if stream.name.startswith(prefix) and stream.exists:
                yield stream

    def group(self, name: str) -> Group | None:
        """Give a group; None where there is none."""
        return self._group(names.group_folder(self._root, name))

    def groups(self, prefix: str = "") -> list[Group]:
        """Give the groups by name."""
        found = (self._group(folder) for folder in self.folders())
        return sorted((g for g in found if g and g.name.startswith(prefix)), key=lambda group: group.name)

    def inventory(self) -> Iterator[tuple[Group, list[Stream]]]:
        """Give every group with its streams, in no order."""
        for folder in self.folders():
            if (group := self._group(folder)) is not None:
                yield group, list(self._streams(folder, group.name))

    def folders(self) -> Iterator[Path]:
        """Give every folder that may be a group's, those within others first."""
        for folder, _, _ in os.walk(self._root, topdown=False):
            if Path(folder) != self._root:
                yield Path(folder)

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Give every stream's file and its size. Made for being asked often: nothing is opened."""
        within = [os.fspath(self._root)]
        while within:
            folder = within.pop()
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        within.append(entry.path)
                    elif entry.name.endswith(names.SUFFIX) and folder != os.fspath(self._root):
                        yield entry.path, entry.stat().st_size

    def _group(self, folder: Path) -> Group | None:
        name = names.group_name(self._root, folder)
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            return Group(**{**json.loads((folder / _RECORD).read_text()), "name": name})
        created = [stream.created for stream in self._streams(folder, name)]
        return Group(name, min(created)) if created else None

    # -- changing -----------------------------------------------------------------------------------------------------

    def create_group(self, name: str, tags: Mapping[str, str], kms_key: str | None = None) -> bool:
        """Make a group that stays without streams; False where there is one."""
        if self.group(name) is not None:
            return False
        self._write(Group(name, int(self._now() * 1000), tags=tags, kms_key=kms_key))
        return True

    def set_retention(self, group: Group, days: int | None) -> None:
        """Say how long the events of a group are kept; None: as long as those of other groups."""
        self._write(replace(group, retention=days))

    def set_tags(self, group: Group, tags: Mapping[str, str]) -> None:
        """Replace the tags of a group."""
        self._write(replace(group, tags=tags))

    def _write(self, group: Group) -> None:
        folder = names.group_folder(self._root, group.name)
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{_RECORD}.new"
        fresh.write_text(json.dumps(asdict(group)))
        fresh.replace(folder / _RECORD)

    def delete_group(self, name: str) -> None:
        """Delete a group with its streams. One whose streams are written to comes back with the next line."""
        folder = names.group_folder(self._root, name)
        for stream in self.streams(name):
            self.delete_stream(stream)
        (folder / _RECORD).unlink(missing_ok=True)
        self._leave(folder)

    def delete_stream(self, stream: Stream) -> None:
        """Delete a stream. A file that a process holds is emptied, or what follows would go where nobody looks."""
        try:
            descriptor = os.open(stream.file, os.O_RDWR)
        except FileNotFoundError:
            return
        try:
            with locked(descriptor):
                if _held_elsewhere(descriptor):
                    os.ftruncate(descriptor, 0)
                else:
                    stream.file.unlink()
                names.times_file(stream.file).unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        self._leave(stream.file.parent)

    def _leave(self, folder: Path) -> None:
        """Remove a folder, and those around it, where they are empty."""
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def _held_elsewhere(descriptor: int) -> bool:
    """Tell whether anybody else has a file open: only where nobody has does the kernel grant a lease for writing.

    The lease ends with the descriptor. Who opens the file meanwhile waits for that, and we are told by a signal, which
    must be one that is ignored: the usual one would end this process.
    """
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return True
    return False
