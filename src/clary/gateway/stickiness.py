"""Which instance holds which stateful session, known to all gateway processes and to those that come after them.

The container opens a session (`X-Amzn-SageMaker-New-Session-Id: <id>; Expires=<time>`) and closes it; between the two,
requests with its id go to the instance that has it. Each session is one small file: whichever process is asked next
reads it on its first miss. A mapping that is out of date does no harm: the container says that it has no such session.
"""

from __future__ import annotations

import json
from calendar import timegm
from hashlib import sha256
from pathlib import Path
from time import strptime

from clary.telemetry import logger

NEW = b"NEW_SESSION"
LIFE = 24 * 3600.0
"""Seconds for which a session is remembered whose container gave no time of expiry, and the most for one that did."""
MOST = 10_000
"""Sessions that are remembered; beyond, the oldest are forgotten."""

_EXPIRES = "%Y-%m-%dT%H:%M:%SZ"


class Stickiness:
    """Sessions of all endpoints. Times are seconds since the epoch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[str, float]] = {}

    def opened(self, endpoint: str, said: str, instance: str, now: float) -> None:
        """Remember what a container said of a new session: `<id>; Expires=<time>`."""
        session, _, rest = said.partition(";")
        expires = min(_expiry(rest.strip().removeprefix("Expires="), now + LIFE), now + LIFE)
        key = _key(endpoint, session.strip())
        self._remember(key, instance, expires)
        fresh = self._folder / f"{key}.new"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            fresh.write_text(json.dumps([instance, expires]))
            fresh.replace(self._folder / key)
        except OSError as error:  # this process knows it; only the others and its successor will not
            logger("gateway").error("cannot write a session down", folder=str(self._folder), error=str(error))

    def closed(self, endpoint: str, session: str) -> None:
        """Forget a session that its container has closed."""
        key = _key(endpoint, session.strip())
        self._known.pop(key, None)
        try:
            (self._folder / key).unlink(missing_ok=True)
        except OSError as error:  # another process may go on sending it to its instance, which says that it is over
            logger("gateway").error("cannot forget a session", folder=str(self._folder), error=str(error))

    def instance(self, endpoint: str, session: str, now: float) -> str | None:
        """Give the id of the instance that holds a session; None where nobody knows of one that is not over."""
        key = _key(endpoint, session)
        found = self._known.get(key) or self._read(key)
        return found[0] if found is not None and found[1] > now else None

    def forget(self, now: float) -> None:
        """Let go of what is over, in memory."""
        self._known = {key: found for key, found in self._known.items() if found[1] > now}

    def sweep(self, now: float) -> None:
        """Remove the files of what is over, and the oldest beyond MOST. Touches nothing but files: for a thread."""
        kept = []
        for file in self._folder.glob("*"):
            found = _load(file)
            if found is not None and found[1] > now:
                kept.append((found[1], file))
            elif file.suffix != ".new" or now - _written(file, now) > LIFE:  # one that is being written stays
                file.unlink(missing_ok=True)
        for _, file in sorted(kept)[: max(0, len(kept) - MOST)]:
            file.unlink(missing_ok=True)

    def _read(self, key: str) -> tuple[str, float] | None:
        found = _load(self._folder / key)
        if found is not None:
            self._remember(key, *found)
        return found

    def _remember(self, key: str, instance: str, expires: float) -> None:
        if len(self._known) >= MOST:
            self._known.clear()  # the files have them
        self._known[key] = (instance, expires)


def _key(endpoint: str, session: str) -> str:
    """Name a session's file: a session's id is a client's text, which is no name for a file."""
    return sha256(f"{endpoint}\0{session}".encode()).hexdigest()


def _load(file: Path) -> tuple[str, float] | None:
    try:
        instance, expires = json.loads(file.read_bytes())
        return str(instance), float(expires)
    except (OSError, ValueError, TypeError):
        return None


def _written(file: Path, otherwise: float) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # it has its name by now
        return otherwise


def _expiry(text: str, otherwise: float) -> float:
    try:
        return float(timegm(strptime(text, _EXPIRES)))
    except ValueError:
        return otherwise
