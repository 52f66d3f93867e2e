"""Events of CloudWatch Logs: pages with tokens that survive restarts, a search over streams, what may be put."""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from clary.errors import AwsError
from clary.logs.patterns import compile_pattern
from clary.logs.stream import Event, Range, Stream

Request = Mapping[str, Any]

_PAGE = 10_000
_ANSWER = 1024 * 1024
"""Bytes of one answer, and of one PutLogEvents; each event counts _OVERHEAD more than its message."""
_OVERHEAD = 26
_SCAN = 4 * 1024 * 1024
"""Bytes that one call looks through; the next one goes on, so no search keeps a client waiting."""
_TOKEN = re.compile(r"([fb])/([0-9]{56})")
_DAY = 86_400_000
_NEWEST_FIRST = 1_704_067_200_000
"""2024-01-01: before it the service does not search backward."""
_TOO_NEW, _TOO_OLD = _DAY // 12, 14 * _DAY
"""Milliseconds between an event's time and now."""


def get(stream: Stream, request: Request) -> dict[str, Any]:
    """Answer GetLogEvents. A token that leads past the end comes back as it is."""
    # Events at the end's very time are not included.
    within = Range(request.get("startTime", 0), request.get("endTime", Range().end + 1) - 1)
    direction, position = _position(request.get("nextToken"), request.get("startFromHead", False))
    limit = request.get("limit", _PAGE)
    if direction == "f":
        events = list(_bounded(stream.events(position or 0, within), limit))
    else:
        events = list(_bounded(stream.events_before(position, within), limit))[::-1]
    if events:
        first, behind = events[0].position, events[-1].after
    else:
        first = behind = position if position is not None else stream.size
    return {
        "events": [{"timestamp": e.timestamp, "message": e.message, "ingestionTime": e.timestamp} for e in events],
        "nextForwardToken": f"f/{behind:056d}",
        "nextBackwardToken": f"b/{first:056d}",
    }


def _position(token: str | None, from_head: bool) -> tuple[str, int | None]:
    if token is None:
        return ("f", 0) if from_head else ("b", None)
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise _invalid_token()
    return found[1], int(found[2])


def _bounded(events: Iterator[Event], limit: int) -> Iterator[Event]:
    """Give as many events as one answer takes, at least one. Empty lines are no events."""
    size = 0
    for event in filter(lambda event: event.message, events):
        size += _size(event.message)
        if limit <= 0 or (size > _ANSWER and size > _size(event.message)):
            return
        yield event
        limit -= 1


def _size(message: str) -> int:
    return len(message.encode()) + _OVERHEAD


class _Key(NamedTuple):
    """The order of the events of a group; the last one looked at is what a token remembers."""

    timestamp: int
    stream: str
    position: int


def search(streams: Sequence[Stream], request: Request) -> dict[str, Any]:
    """Answer FilterLogEvents: all that matches, by time, in pages that may be short and even empty but for a token."""
    matches = compile_pattern(request.get("filterPattern", ""))
    rising, last = _direction(request)
    found: list[dict[str, Any]] = []
    limit, scanned, size = request.get("limit", _PAGE), 0, 0
    token: dict[str, str] = {}
    for key, event in _merged(streams, request, rising, last):
        if len(found) >= limit or scanned > _SCAN or size > _ANSWER:
            token = {"nextToken": base64.urlsafe_b64encode(json.dumps([rising, last]).encode()).decode()}
            break
        last, scanned = key, scanned + len(event.message)
        if matches(event.message):
            size += _size(event.message)
            found.append(_found(key, event))
    return {"events": found, "searchedLogStreams": [], **token}


def _merged(
    streams: Sequence[Stream], request: Request, rising: bool, last: _Key | None
) -> Iterator[tuple[_Key, Event]]:
    """Give what is to be looked at, in one direction or the other, beginning behind a key."""
    within = Range(request.get("startTime", 0), request.get("endTime", Range().end))
    rest = [_rest(stream, within, rising, last) for stream in streams]
    for key, event in heapq.merge(*map(_keyed, streams, rest), reverse=not rising):
        if event.message and key != last:
            yield key, event


def _keyed(stream: Stream, events: Iterator[Event]) -> Iterator[tuple[_Key, Event]]:
    for event in events:
        yield _Key(event.timestamp, stream.name, event.position), event


def _rest(stream: Stream, within: Range, rising: bool, last: _Key | None) -> Iterator[Event]:
    """Give what of a stream is behind a key. Of the events of the key's time, streams come by name."""
    position = last.position if last is not None and last.stream == stream.name else None
    if last is not None and rising:
        within = within._replace(start=max(within.start, last.timestamp + (stream.name < last.stream)))
    elif last is not None:
        within = within._replace(end=min(within.end, last.timestamp - (stream.name > last.stream)))
    return stream.events(position or 0, within) if rising else stream.events_before(position, within)


def _found(key: _Key, event: Event) -> dict[str, Any]:
    # 56 digits, as the service's, that name the event for all time: clients tell by them what they have shown.
    stream = int.from_bytes(hashlib.sha256(key.stream.encode()).digest()[:8], "big")
    return {
        "logStreamName": key.stream,
        "timestamp": event.timestamp,
        "message": event.message,
        "ingestionTime": event.timestamp,
        "eventId": f"{event.timestamp:016d}{stream:020d}{event.position:020d}",
    }


def _direction(request: Request) -> tuple[bool, _Key | None]:
    """Tell whether the oldest come first, and where the page before ended; a token knows both."""
    if "nextToken" not in request:
        rising = request.get("startFromHead", True)
        if not rising and request.get("startTime", _NEWEST_FIRST) < _NEWEST_FIRST:
            raise invalid("Setting startFromHead to false takes a startTime on or after Jan 1, 2024 00:00:00 UTC.")
        return rising, None
    try:
        rising, (timestamp, stream, position) = json.loads(base64.urlsafe_b64decode(request["nextToken"]))
        return bool(rising), _Key(int(timestamp), str(stream), int(position))
    except (ValueError, TypeError):
        raise _invalid_token() from None


def admissible(
    events: Sequence[Mapping[str, Any]], now: float, retention: int | None
) -> tuple[Sequence[Mapping[str, Any]], dict[str, int]]:
    """Give those events that may be stored, and why the others may not, as indices.

    Raises AwsError InvalidParameterException (400) where the whole batch breaks a rule.
    """
    times, sizes = [event["timestamp"] for event in events], [_size(event["message"]) for event in events]
    if any(later < earlier for earlier, later in pairwise(times)):
        raise invalid("Log events in a single PutLogEvents request must be in chronological order.")
    if sum(sizes) > _ANSWER:
        raise invalid(f"Upload too large: {sum(sizes)} bytes exceeds limit of {_ANSWER}")
    present = int(now * 1000)
    old = sum(each < present - _TOO_OLD for each in times)
    expired = sum(each < present - retention * _DAY for each in times) if retention else 0
    new = sum(each <= present + _TOO_NEW for each in times)
    rejected = {
        "tooNewLogEventStartIndex": new if new < len(times) else None,
        "tooOldLogEventEndIndex": old or None,
        "expiredLogEventEndIndex": expired or None,
    }
    accepted = events[max(old, expired) : new]
    if accepted and accepted[-1]["timestamp"] - accepted[0]["timestamp"] > _DAY:
        raise invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
    return accepted, {name: index for name, index in rejected.items() if index is not None}


def _invalid_token() -> AwsError:
    return invalid("The specified nextToken is invalid.")


def invalid(message: str) -> AwsError:
    """Make the refusal of a parameter."""
    return AwsError(message, code="InvalidParameterException", status=400)
