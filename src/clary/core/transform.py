"""What a transform job is to do, read from its CreateTransformJob request, and what the container has a say in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from clary.core.batching import MIB
from clary.core.framing import SplitType
from clary.core.jsonpath import Path
from clary.core.processing import Processing
from clary.core.tabular import format_of

CONCURRENCY, PAYLOAD_MB, TIMEOUT, RETRIES = 1, 6, 600, 3
"""The service's defaults of MaxConcurrentTransforms, MaxPayloadInMB, InvocationsTimeoutInSeconds and -MaxRetries."""
PRODUCT = 100
"""What MaxConcurrentTransforms and MaxPayloadInMB may come to together."""
MOST_AT_ONCE = 1000
"""Requests that an instance gets at once, whatever is asked for: each has a connection of its own."""
SINGLE, MULTI = "SINGLE_RECORD", "MULTI_RECORD"
"""Batch strategies as containers know them."""

Request = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pace:
    """How requests are sent: so many at once to each instance, of at most `payload` bytes (0: any) each."""

    concurrency: int
    payload: int
    single: bool

    @property
    def words(self) -> str:
        """Say it as the service's data log does."""
        strategy = SINGLE if self.single else MULTI
        megabytes = self.payload // MIB
        return f"MaxConcurrentTransforms={self.concurrency}, MaxPayloadInMB={megabytes}, BatchStrategy={strategy}"


@dataclass(frozen=True, slots=True)
class Work:
    """A job, as its agent needs it. All names are the request's."""

    request: Request

    @property
    def source(self) -> Request:
        source: Request = self.request["TransformInput"]["DataSource"]["S3DataSource"]
        return source

    @property
    def split(self) -> SplitType:
        return cast("SplitType", self.request["TransformInput"].get("SplitType", "None"))

    @property
    def is_gzip(self) -> bool:
        return bool(self.request["TransformInput"].get("CompressionType") == "Gzip")

    @property
    def content_type(self) -> str:
        return str(self.request["TransformInput"].get("ContentType", ""))

    @property
    def accept(self) -> str:
        return str(self.request["TransformOutput"].get("Accept", ""))

    @property
    def by_lines(self) -> bool:
        """Whether the output gets the ends of lines that answers lack."""
        return bool(self.request["TransformOutput"].get("AssembleWith") == "Line")

    @property
    def timeout(self) -> float:
        return float(self._client.get("InvocationsTimeoutInSeconds", TIMEOUT))

    @property
    def retries(self) -> int:
        return int(self._client.get("InvocationsMaxRetries", RETRIES))

    @property
    def _client(self) -> Request:
        return self.request.get("ModelClientConfig") or {}

    def output_url(self, key: str) -> str:
        """Give where the output goes of the object that has this key, seen from where the input begins."""
        return f"{self.request['TransformOutput']['S3OutputPath'].rstrip('/')}/{key}.out"

    def pace(self, container: Request) -> Pace:
        """Combine what was asked for with what the container answered to GET /execution-parameters, if it did."""
        concurrency = self.request.get("MaxConcurrentTransforms") or _number(container, "MaxConcurrentTransforms")
        payload = self.request.get("MaxPayloadInMB", _number(container, "MaxPayloadInMB"))
        if payload is None or not 0 <= payload <= PRODUCT:
            payload = PAYLOAD_MB
        strategy = self.request.get("BatchStrategy", container.get("BatchStrategy", MULTI))
        at_once = min(max(1, concurrency or CONCURRENCY), MOST_AT_ONCE)
        return Pace(at_once, payload * MIB, strategy in ("SingleRecord", SINGLE))

    def processing(self, started: str, new_id: Callable[[], str]) -> Processing | None:
        """Give what is done with each record; None where records are passed as they are."""
        asked = self.request.get("DataProcessing") or {}
        wants_ids = (self.request.get("DataCaptureConfig") or {}).get("GenerateInferenceId", False)
        incoming, outgoing = Path(asked.get("InputFilter", "$")), Path(asked.get("OutputFilter", "$"))
        join = asked.get("JoinSource", "None") == "Input"
        if incoming.is_whole and outgoing.is_whole and not join and not wants_ids:
            return None
        known = format_of(self.content_type or self.accept, by_lines=self.split == "Line")
        if known is None:
            return None
        return Processing(known, incoming, outgoing, join, started if wants_ids else "", new_id)


def _number(container: Request, member: str) -> int | None:
    """Give a number that a container answered; None where it is none: anything may stand there."""
    try:
        return int(container[member])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def environment_of(request: Request) -> dict[str, str]:
    """Give the variables of the containers of a job, which win over those of their model."""
    platform = {"SAGEMAKER_BATCH": "true"}
    if "MaxPayloadInMB" in request:
        platform["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(request["MaxPayloadInMB"])
    if "BatchStrategy" in request:
        platform["SAGEMAKER_BATCH_STRATEGY"] = SINGLE if request["BatchStrategy"] == "SingleRecord" else MULTI
    if "MaxConcurrentTransforms" in request:
        platform["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = str(request["MaxConcurrentTransforms"])
    return {**(request.get("Environment") or {}), **platform}


Ending = Literal["Completed", "Failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job's work ended."""

    ending: Ending
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. Sizes in bytes, of the input as it is stored; `seconds` is how long this agent has worked."""

    objects: int = 0
    objects_total: int = 0
    failed: int = 0
    records: int = 0
    size: int = 0
    size_total: int = 0
    seconds: float = 0.0
    size_before: int = 0
    """Of `size`, what an earlier agent did: it says nothing of how fast this one is."""
    records_before: int = 0

    @property
    def rate(self) -> float:
        """Give records per second."""
        return (self.records - self.records_before) / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Give the seconds that are left, as far as can be told from the bytes that are.

        Of an output that is on its way to S3 they tell nothing.
        """
        done, left = self.size - self.size_before, self.size_total - self.size
        return self.seconds / done * left if done > 0 and (left or self.objects == self.objects_total) else None

    @property
    def words(self) -> str:
        """Say it in a line."""
        left = "" if self.left is None else f", {_clock(self.left)} left"
        failed = f" ({self.failed} failed)" if self.failed else ""
        return (
            f"{self.objects:,} of {self.objects_total:,} objects{failed}, {self.records:,} records, "
            f"{self.rate:,.0f} records/s{left}"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
