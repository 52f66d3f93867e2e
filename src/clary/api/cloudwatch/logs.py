"""CloudWatch Logs: the groups and streams of containers, and those that clients make for themselves.

Source: the API reference of Amazon CloudWatch Logs. What is read lies on disk (`clary.logs`), so every operation works
in a thread. Before anything is read, what containers have written since the last look is given its time: an event that
was shown keeps its time, and what is shown later is not older.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from clary.api.cloudwatch import log_events
from clary.core.policy import Context, Inquiry
from clary.core.resources import Partition
from clary.errors import AwsError
from clary.logs.folder import Group, LogFolder
from clary.logs.stream import Stream
from clary.logs.upkeep import see
from clary.wire.dispatch import Caller, Handler

Request = Mapping[str, Any]
Answer = dict[str, Any]

_RETENTIONS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
_PAGE = 50
_NO_GROUP = "The specified log group does not exist."
_MOST_TAGS = 50
_TAG_KEYS = ("aws:resourcetag/", "aws:requesttag/", "aws:tagkeys")
"""Condition keys that are not looked up for logs."""


class Logs:
    """The operations of `logs`. `now` gives seconds since the epoch."""

    def __init__(self, folder: LogFolder, partition: Partition, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._partition = partition
        self._now = now

    def operations(self) -> dict[tuple[str, str], Handler]:
        """Give the operations by service and name."""
        table: dict[str, Callable[[Request], Answer | None]] = {
            "CreateLogGroup": self.create_group,
            "DescribeLogGroups": self.describe_groups,
            "DeleteLogGroup": self.delete_group,
            "PutRetentionPolicy": self.put_retention,
            "DeleteRetentionPolicy": self.delete_retention,
            "ListTagsForResource": self.list_tags,
            "TagResource": self.tag,
            "UntagResource": self.untag,
            "CreateLogStream": self.create_stream,
            "DescribeLogStreams": self.describe_streams,
            "DeleteLogStream": self.delete_stream,
            "PutLogEvents": self.put_events,
            "GetLogEvents": self.get_events,
            "FilterLogEvents": self.filter_events,
        }
        return {("logs", name): _in_thread(operation) for name, operation in table.items()}

    # -- groups -------------------------------------------------------------------------------------------------------

    def create_group(self, request: Request) -> None:
        """Make a group. Raises ResourceAlreadyExistsException."""
        if request.get("logGroupClass", "STANDARD") != "STANDARD":
            raise log_events.invalid(f"Clary has no log groups of class {request['logGroupClass']}.")
        if request.get("deletionProtectionEnabled"):
            raise log_events.invalid("Clary does not protect log groups from deletion.")
        if not self._folder.create_group(request["logGroupName"], request.get("tags", {}), request.get("kmsKeyId")):
            raise _taken("The specified log group already exists")

    def describe_groups(self, request: Request) -> Answer:
        """List groups by name, with prefix or with what their names contain."""
        prefix, part = request.get("logGroupNamePrefix", ""), request.get("logGroupNamePattern", "")
        if prefix and part:
            raise log_events.invalid("LogGroupNamePrefix and LogGroupNamePattern are mutually exclusive parameters.")
        if request.get("includeLinkedAccounts") or request.get("accountIdentifiers"):
            raise log_events.invalid("Clary has no linked accounts.")
        named = {self._name(identifier) for identifier in request.get("logGroupIdentifiers", ())}
        found = [
            group
            for group in self._folder.groups(prefix)
            if part in group.name
            and (not named or group.name in named)
            and request.get("logGroupClass", "STANDARD") == "STANDARD"
        ]
        return _page(request, "logGroups", found, lambda group: group.name, self._described_group)

    def _described_group(self, group: Group) -> Answer:
        arn = self._arn(group.name)
        described = {
            "logGroupName": group.name,
            "creationTime": group.created,
            "metricFilterCount": 0,
            "arn": f"{arn}:*",
            "storedBytes": sum(stream.size - stream.head for stream in self._folder.streams(group.name)),
            "logGroupClass": "STANDARD",
            "logGroupArn": arn,
        }
        return described | {"retentionInDays": group.retention, "kmsKeyId": group.kms_key}

    def delete_group(self, request: Request) -> None:
        """Delete a group with all streams; a container that runs on brings it back with its next line."""
        self._folder.delete_group(self._group(request).name)

    def put_retention(self, request: Request) -> None:
        """Say how many days events are kept."""
        days = request["retentionInDays"]
        if days not in _RETENTIONS:
            valid = ", ".join(map(str, _RETENTIONS))
            raise log_events.invalid(
                f"1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{valid}]"
            )
        self._folder.set_retention(self._group(request), days)

    def delete_retention(self, request: Request) -> None:
        """Keep events as long as those of all groups (`--log-retention`)."""
        self._folder.set_retention(self._group(request), None)

    def list_tags(self, request: Request) -> Answer:
        """Give the tags of a group by its ARN."""
        return {"tags": self._tagged(request).tags}

    def tag(self, request: Request) -> None:
        """Add tags or overwrite them."""
        group = self._tagged(request)
        tags = {**group.tags, **request["tags"]}
        if len(tags) > _MOST_TAGS:
            message = "The maximum number of tags that a resource can have is 50."
            raise AwsError(message, code="TooManyTagsException", status=400)
        self._folder.set_tags(group, tags)

    def untag(self, request: Request) -> None:
        """Remove tags; those that are not there are fine."""
        group = self._tagged(request)
        self._folder.set_tags(group, {k: v for k, v in group.tags.items() if k not in request["tagKeys"]})

    def _tagged(self, request: Request) -> Group:
        return self._group({"logGroupIdentifier": request["resourceArn"]})

    # -- streams ------------------------------------------------------------------------------------------------------

    def create_stream(self, request: Request) -> None:
        """Make a stream in a group that is there. Raises ResourceAlreadyExistsException."""
        if not self._folder.create_stream(self._group(request).name, request["logStreamName"]):
            raise _taken("The specified log stream already exists")

    def describe_streams(self, request: Request) -> Answer:
        """List the streams of a group, by name or by the time of their last events."""
        by_time, prefix = request.get("orderBy") == "LastEventTime", request.get("logStreamNamePrefix", "")
        if by_time and prefix:
            raise log_events.invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        group = self._group(request).name
        streams = self._streams(group, prefix)
        if by_time:
            streams.sort(key=lambda stream: (stream.last_timestamp or 0, stream.name))
        if request.get("descending"):
            streams.reverse()
        return _page(request, "logStreams", streams, lambda stream: stream.name, self._described_stream)

    def _described_stream(self, stream: Stream) -> Answer:
        described = {
            "logStreamName": stream.name,
            "creationTime": stream.created,
            "arn": f"{self._arn(stream.group)}:log-stream:{stream.name}",
            "storedBytes": stream.size - stream.head,
        }
        if (last := stream.last_timestamp) is None:
            return described
        first = stream.first_timestamp
        return described | {
            "firstEventTimestamp": last if first is None else first,
            "lastEventTimestamp": last,
            "lastIngestionTime": last,
        }

    def delete_stream(self, request: Request) -> None:
        """Delete a stream; a container that runs on brings it back with its next line."""
        self._folder.delete_stream(self._stream(self._group(request).name, request["logStreamName"]))

    # -- events -------------------------------------------------------------------------------------------------------

    def put_events(self, request: Request) -> Answer:
        """Append events to a stream that is there; those that are too old or too new are left out, and named."""
        group = self._group(request)
        stream = self._stream(group.name, request["logStreamName"])
        accepted, rejected = log_events.admissible(request["logEvents"], self._now(), group.retention)
        with self._folder.writer(group.name, stream.name) as writer:
            for event in accepted:
                # The end is the writer's own: one that the message has is part of it.
                writer.write(event["timestamp"], event["message"].encode() + b"\n")
        return {"nextSequenceToken": f"{time.time_ns():056d}"} | (
            {"rejectedLogEventsInfo": rejected} if rejected else {}
        )

    def get_events(self, request: Request) -> Answer:
        """Give the events of one stream: the last ones, or with `startFromHead` the first, or those at a token."""
        return log_events.get(self._stream(self._group(request).name, request["logStreamName"]), request)

    def filter_events(self, request: Request) -> Answer:
        """Give the events of all or some streams of a group that match a pattern, by their times."""
        group, wanted = self._group(request).name, request.get("logStreamNames")
        if wanted and "logStreamNamePrefix" in request:
            raise log_events.invalid("logStreamNames and logStreamNamePrefix are mutually exclusive parameters.")
        if wanted:
            streams = [self._stream(group, name) for name in dict.fromkeys(wanted)]
        else:
            streams = self._streams(group, request.get("logStreamNamePrefix", ""))
        return log_events.search(streams, request)

    # -- finding ------------------------------------------------------------------------------------------------------

    def _group(self, request: Request) -> Group:
        name, identifier = request.get("logGroupName"), request.get("logGroupIdentifier")
        if (name is None) == (identifier is None):
            raise log_events.invalid("Exactly one of logGroupName and logGroupIdentifier must be given.")
        group = self._folder.group(name if name is not None else self._name(str(identifier)))
        if group is None:
            raise _missing(_NO_GROUP)
        return group

    def _name(self, identifier: str) -> str:
        """Give the name in a group's ARN; another account's and other regions' groups are not here."""
        if not identifier.startswith("arn:"):
            return identifier
        name = identifier.removeprefix(self._arn(""))
        if name.startswith("arn:") or not name:
            raise _missing(_NO_GROUP)
        return name

    def _stream(self, group: str, name: str) -> Stream:
        at, stream = self._now(), self._folder.stream(group, name)
        if stream is None:
            raise _missing("The specified log stream does not exist.")
        return _seen(stream, at)

    def _streams(self, group: str, prefix: str) -> list[Stream]:
        at = self._now()  # one time for all of them, before any was looked at: what is written later is newer
        return [_seen(stream, at) for stream in self._folder.streams(group, prefix)]

    def _arn(self, group: str) -> str:
        return (
            f"arn:{self._partition.name}:logs:{self._partition.region}:{self._partition.account_id}:log-group:{group}"
        )


def inquiry(operation: str, request: Request, partition: Partition, context: Context) -> Inquiry:
    """Say what must be allowed. The service asks about a stream everywhere, even where a whole group is meant."""
    group = request.get("logGroupName") or request.get("logGroupIdentifier") or request.get("resourceArn") or ""
    if operation == "DescribeLogGroups":
        group = request.get("logGroupNamePrefix", "")
    names = f"arn:{partition.name}:logs:{partition.region}:{partition.account_id}:log-group:"
    arn = group if group.startswith("arn:") else f"{names}{group}"
    stream = request.get("logStreamName", "")
    return Inquiry(f"logs:{operation}", f"{arn}:log-stream:{stream}", context, _TAG_KEYS)


def _seen(stream: Stream, at: float) -> Stream:
    """Give a stream as it is when all of its lines have times."""
    if stream.seen:
        return stream
    with contextlib.suppress(FileNotFoundError):
        see(stream.file, at)
    return replace(stream)


def _in_thread(operation: Callable[[Request], Answer | None]) -> Handler:
    async def handle(caller: Caller, request: dict[str, Any]) -> Answer | None:
        return await asyncio.to_thread(operation, request)

    return handle


def _page(
    request: Request, member: str, found: list[Any], key: Callable[[Any], str], describe: Callable[[Any], Answer]
) -> Answer:
    """Give a page; a token is the name that the last page ended with."""
    start, token = 0, request.get("nextToken")
    if token is not None:
        start = next((n + 1 for n, each in enumerate(found) if key(each) == token), -1)
        if start < 0:
            raise log_events.invalid("The specified nextToken is invalid.")
    part = found[start : start + request.get("limit", _PAGE)]
    more = {"nextToken": key(part[-1])} if start + len(part) < len(found) and part else {}
    return {member: [describe(each) for each in part], **more}


def _missing(message: str) -> AwsError:
    return AwsError(message, code="ResourceNotFoundException", status=400)


def _taken(message: str) -> AwsError:
    return AwsError(message, code="ResourceAlreadyExistsException", status=400)
