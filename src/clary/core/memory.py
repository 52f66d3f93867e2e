"""What a status remembers of the failures of an endpoint's containers, and of the launches that are under way.

A control plane that dies goes on counting in its next life: what crashes again and again is given up, and restarted
with growing pauses, and so is a launch that is cut off again and again, however often Clary is restarted meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict, cast

from clary.core.deployment import Attempts
from clary.core.failure import LONGEST, Failure, Severity, shorten

_MEMBER, _BEGUN = "_Attempts", "_Begun"


class _Document(TypedDict):
    """The attempts of one container as JSON."""

    id: str
    failures: int
    first_at: float
    ready_since: float | None
    step: str
    detail: str
    run: float
    at: float
    severity: Severity
    log: list[str]


def attempts_of(status: Mapping[str, object]) -> dict[str, Attempts]:
    """Give the attempts that still count, by container id."""
    known = {each["id"]: _attempts(each) for each in cast("list[_Document]", status.get(_MEMBER, []))}
    for id, (times, since) in cast("Mapping[str, tuple[int, float]]", status.get(_BEGUN, {})).items():
        known[id] = replace(known.get(id, Attempts()), begun=times, begun_at=since)
    return known


def with_attempts(status: Mapping[str, object], attempts: Mapping[str, Attempts]) -> dict[str, object]:
    """Give the status with these attempts and no others; where all is well there is nothing to remember."""
    known = {name: value for name, value in status.items() if name not in (_MEMBER, _BEGUN)}
    documents = [_document(id, it, it.last) for id, it in attempts.items() if it.failures and it.last is not None]
    begun = {id: [it.begun, it.begun_at] for id, it in attempts.items() if it.begun}
    return {**known, **({_MEMBER: documents} if documents else {}), **({_BEGUN: begun} if begun else {})}


def _attempts(it: _Document) -> Attempts:
    last = Failure(it["step"], it["detail"], it["run"], it["at"], it["severity"], tuple(it["log"]))
    return Attempts(it["failures"], it["first_at"], last, it["ready_since"])


def _document(id: str, it: Attempts, last: Failure) -> _Document:
    return {
        "id": id,
        "failures": it.failures,
        "first_at": it.first_at,
        "ready_since": it.ready_since,
        "step": last.step,
        "detail": shorten(last.detail, LONGEST),
        "run": last.run,
        "at": last.at,
        "severity": last.severity,
        "log": _ending(last.log),
    }


def _ending(log: tuple[str, ...]) -> list[str]:
    """Give as much of the log's end as FailureReason has room for."""
    kept: list[str] = []
    room = LONGEST
    for line in reversed(log):
        if room <= 0:
            break
        kept.append(shorten(line, LONGEST))
        room -= len(kept[-1]) + 1
    return kept[::-1]
