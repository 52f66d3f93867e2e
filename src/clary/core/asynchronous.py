"""Asynchronous inference: one request from its acknowledgement to its end, and what to do with it next.

Sources: "Asynchronous inference" in the service's developer guide, the service model, and notifications that were seen.
A request is whole in itself: what is needed to answer it, or to say that it failed, outlives its endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from clary.core import model_error
from clary.core.routing import AsyncInference, EndpointRoute, Target, VariantRoute, choose

DEFAULT_TTL = 21_600
"""Seconds that a request may wait (RequestTTLSeconds)."""
DEFAULT_TIMEOUT = 900
"""Seconds that a model may take (InvocationTimeoutSeconds)."""
MAX_INLINE = 128_000
"""Bytes of a body that comes with the request."""
MAX_ATTEMPTS = 3
"""Times that a request may reach a container which then breaks, the last one with the instance to itself: what breaks
then breaks by this request and by no neighbour."""
ATTEMPT_DELAYS = (0.2, 1.0, 2.0, 5.0, 10.0)
"""Seconds before the next attempt, by the number of them; the last one stays."""


@dataclass(frozen=True, slots=True)
class AsyncRequest:
    """One request of InvokeEndpointAsync. Times in seconds since the epoch."""

    id: str
    """Names the output; not the caller's InferenceId."""
    queue: str
    endpoint: str
    inference_id: str
    accepted_at: float
    expires_at: float
    timeout: float
    output_location: str
    failure_location: str = ""
    input_location: str = ""
    """Empty: its body is kept with it."""
    content_type: str = ""
    accept: str = ""
    custom_attributes: str = ""
    success_topic: str = ""
    error_topic: str = ""
    include_success: bool = False
    include_error: bool = False
    role_arn: str = ""
    """Of the endpoint as it was then: a failure is written as that role when there is no endpoint any more."""


class Refusal(Exception):
    """The request cannot be queued; the message is a sentence for the caller."""


def locations(config: AsyncInference, id: str, extension: str, filename: str) -> tuple[str, str]:
    """Give where the answer goes and, empty where nobody wants it, where a failure does.

    Raises Refusal for what would be no key of its own: stores drop empty segments and follow dots.
    """
    if not config.output_path:
        raise Refusal("The endpoint configuration has no S3OutputPath, so there is nowhere to put the answer.")
    folders = extension.strip("/").split("/") if extension.strip("/") else []
    if any(part in ("", ".", "..") for part in folders):
        raise Refusal(f"S3OutputPathExtension '{extension}' has segments that are empty or dots.")
    stem, dot, suffix = filename.rpartition(".")
    if not filename:
        name, failed = f"{id}.out", f"{id}-error.out"
    elif dot:
        name, failed = filename, f"{stem}-error.{suffix}"
    else:
        name, failed = filename, f"{filename}-error"
    below = [config.output_path.rstrip("/"), *folders]
    failures = [config.failure_path.rstrip("/"), *folders]
    return "/".join([*below, name]), "/".join([*failures, failed]) if config.failure_path else ""


# -- before an attempt -------------------------------------------------------------------------------------------------


class Past(NamedTuple):
    """What a request that waits has gone through."""

    instance: str = ""
    """The one that had it last; empty: none did. It is taken again only where its variant has no other with room."""
    breaks: int = 0
    """Containers that broke under it. Before its last attempt it waits for an instance that has nothing else to do."""
    trouble: str = ""
    """What the last attempt came to, in words; empty: there was none."""


UNTRIED = Past()


class Wait(NamedTuple):
    """There is no place for it now."""


class Invoke(NamedTuple):
    """Give it to this instance."""

    variant: VariantRoute
    target: Target
    room: int = 1
    """Requests' worth of the instance that it takes; all there is where it has to be alone."""


Kind = Literal["expired", "deleted", "model", "download", "upload"]
"""Which of the metrics a failure counts in."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ends without an answer."""

    kind: Kind
    text: str
    """What the object at the FailureLocation holds."""
    reason: str
    """What the notification says (failureReason)."""
    status: int = 0
    """The container's."""
    body: bytes | None = None
    """What the container said."""


Step = Wait | Invoke | Failed


def next_step(
    request: AsyncRequest,
    route: EndpointRoute | None,
    now: float,
    load: Mapping[str, int],
    served: Mapping[str, float],
    past: Past = UNTRIED,
) -> Step:
    """Decide about a request that waits.

    `route` is that of its endpoint now; `load` is the room that instances have given away, and `served` counts the
    requests that variants got.
    """
    config = None if route is None else route.asynchronous
    if route is None or config is None or config.queue != request.queue or route.status in ("Deleting", "Failed"):
        return _service_failure("deleted", f"Endpoint {request.endpoint} was deleted before the request was processed.")
    if now >= request.expires_at:
        waited = round(request.expires_at - request.accepted_at)
        text = f"The request expired: it was not processed within {waited} seconds (RequestTTLSeconds)."
        return _service_failure("expired", f"{text} The last attempt: {past.trouble}" if past.trouble else text)
    return place(route.variants, config.concurrency, load, served, past) or Wait()


def place(
    variants: Sequence[VariantRoute],
    concurrency: int,
    load: Mapping[str, int],
    served: Mapping[str, float],
    past: Past = UNTRIED,
) -> Invoke | None:
    """Choose among the instances with room: first the variant that is furthest behind its weight, then the least busy.

    A variant that is full holds up nobody: its share goes to the others, and it catches up when it has room.
    """
    alone = past.breaks >= MAX_ATTEMPTS - 1
    best: tuple[float, VariantRoute, VariantRoute] | None = None
    for variant in variants:
        if variant.weight <= 0:
            continue
        free = tuple(target for target in variant.targets if load.get(target.id, 0) < (1 if alone else concurrency))
        if not free:
            continue
        share = served.get(variant.name, 0.0) / variant.weight
        if best is None or share < best[0]:
            best = (share, variant, VariantRoute(variant.name, variant.weight, free))
    if best is None:
        return None
    avoid = (past.instance,) if past.instance else ()
    return Invoke(best[1], choose(best[2], 0.0, load, avoid), concurrency if alone else 1)


# -- after an attempt --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer is at the OutputLocation."""

    content_type: str
    status: int = 200
    body: bytes | None = None
    """The answer itself where it is small enough for a notification."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The container's answer is not 2xx. Without a body: it is too large, or was cut short."""

    container: str
    status: int
    body: bytes | None


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The model took longer than it may."""

    container: str


@dataclass(frozen=True, slots=True)
class Broken:
    """No whole answer came."""

    container: str
    reached: bool = True
    """The request may have been read; False: there was no connection, and the container cannot know of it."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """It cannot be done: there is no such input, the role may not read it, nobody may write the output, ...

    `detail` is a sentence.
    """

    kind: Kind
    detail: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The store of objects does not answer now."""

    detail: str


Outcome = Completed | Refused | TimedOut | Broken | Unusable | Unavailable


class Again(NamedTuple):
    """Try once more after so many seconds."""

    delay: float
    trouble: str
    """Why, in words."""


def judge(
    request: AsyncRequest, outcome: Outcome, attempts: int, breaks: int, *, removed: bool
) -> Completed | Failed | Again:
    """Decide after an attempt. `attempts` counts all, this one included, `breaks` those that ended with a broken
    container; `removed`: its instance is to be there no more, so that its end says nothing of the request.

    Nothing of an answer is seen before it is whole, so a broken one may be asked for again.
    """
    match outcome:
        case Completed():
            return outcome
        case Unavailable(detail):
            return Again(_delay(attempts), detail)
        case Broken(container=container, reached=False):
            return Again(_delay(attempts), f"{container} takes no connection")
        case Broken(container=container):
            if removed or breaks < MAX_ATTEMPTS:
                return Again(_delay(attempts), f"no whole answer came from {container}")
            return _model_failure(container, 0, model_error.no_answer(request.endpoint).encode())
        case Refused(container, status, body):
            return _model_failure(container, status, body)
        case TimedOut(container):
            return _model_failure(container, 0, model_error.timed_out(container).encode())
        case Unusable(kind, detail):
            return Failed(kind, detail, f"ClientError: {detail}")


def _delay(attempts: int) -> float:
    return ATTEMPT_DELAYS[min(attempts, len(ATTEMPT_DELAYS)) - 1]


def _model_failure(container: str, status: int, body: bytes | None) -> Failed:
    kind = "client" if model_error.is_client_error(status) else "server"
    reason = (
        f"ClientError: Received {kind} error ({status}) from {container}. See the SageMaker Endpoint logs in your "
        "account for more information."
    )
    return Failed("model", model_error.refused(container, status, body), reason, status, body)


def _service_failure(kind: Kind, text: str) -> Failed:
    return Failed(kind, text, f"ClientError: {text}")


# -- the end -----------------------------------------------------------------------------------------------------------


class Notification(NamedTuple):
    """What is published when a request has ended."""

    topic: str
    message: Mapping[str, Any]
    endpoint: str
    variant: str = ""
    """Which has it among its numbers where it cannot be sent; empty: none."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The end of a request: it leaves the queue, and a notification waits to be sent."""

    id: str
    notification: Notification | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in one queue or is being worked at."""

    size: int
    oldest: float
    """When the oldest was acknowledged."""
