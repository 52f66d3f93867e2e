"""The data folder: one Clary at a time holds it, and what it keeps is of one account and region."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from clary.core.resources import Partition
from clary.errors import SettingsError


@contextlib.contextmanager
def held(data: Path, run: Path, partition: Partition) -> Iterator[None]:
    """Hold the folder, making it where it does not exist.

    Raises SettingsError where another Clary holds it, where it keeps resources of another account or region (their
    ARNs are in tags, policies and clients' notes, so they are not rewritten), and where it cannot be used at all.
    """
    with blamed(data):
        run.mkdir(parents=True, exist_ok=True)
        file = (run / "lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"--data: {data} is in use by another Clary; stop it or choose another folder"
            ) from error
        _claim(data, partition)
        yield


@contextlib.contextmanager
def blamed(data: Path) -> Iterator[None]:
    """Say of what goes wrong here that it is the data folder's fault."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"--data: {data} cannot be used: {error.strerror}") from error


def _claim(data: Path, partition: Partition) -> None:
    path = data / "partition.json"
    wanted = {"account_id": partition.account_id, "region": partition.region}
    with blamed(data):
        kept = json.loads(path.read_text()) if path.exists() else None
        if kept is None:
            path.write_text(json.dumps(wanted))
    for name, value in wanted.items():
        if kept is not None and kept.get(name) != value:
            flag = "--" + name.replace("_", "-")
            raise SettingsError(
                f"{flag}: {data} keeps resources of {kept.get(name)}, whose ARNs say so; "
                f"start with {flag} {kept.get(name)}, or with another --data"
            )
