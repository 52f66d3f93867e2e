"""CloudWatch Logs, called as the dispatcher calls it: over a folder of its own, as of a clock of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clary.api.cloudwatch.logs import Logs, inquiry
from clary.core.resources import Partition
from clary.errors import AwsError
from clary.logs.folder import LogFolder
from clary.wire.dispatch import Dispatcher
from tests.api.conftest import ACCOUNT, CALLER, Clock

PARTITION = Partition(ACCOUNT, "us-east-1")
GROUP = "/aws/sagemaker/Endpoints/iris"
ARN = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{GROUP}"
STREAM = "AllTraffic/i-1"


class Api:
    """`await api("GetLogEvents", ...)`, through the dispatcher; `await api.refusal(...)` gives code and message."""

    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.clock.now = 1_800_000_000.0
        self.folder = LogFolder(root, self.clock)
        self._dispatcher = Dispatcher(Logs(self.folder, PARTITION, self.clock).operations())

    async def raw(self, operation: str, members: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {"x-amz-target": f"Logs_20140328.{operation}", "content-type": "application/x-amz-json-1.1"}
        answer = await self._dispatcher.handle("logs", headers, json.dumps(members).encode(), CALLER)
        return answer.status, json.loads(answer.body or b"{}")

    async def __call__(self, operation: str, **members: Any) -> dict[str, Any]:
        status, answer = await self.raw(operation, members)
        assert status == 200, answer
        return answer

    async def refusal(self, operation: str, **members: Any) -> tuple[str, str]:
        status, answer = await self.raw(operation, members)
        assert status == 400, answer
        return answer["__type"], answer["message"]

    def write(self, *lines: str, stream: str = STREAM, group: str = GROUP) -> None:
        """Write a line a second, the first one now."""
        with self.folder.writer(group, stream) as writer:
            for line in lines:
                writer.write(int(self.clock.now * 1000), line.encode())
                self.clock.now += 1

    async def messages(self, **members: Any) -> list[str]:
        """Give what FilterLogEvents finds on all pages."""
        found, token = [], {}
        while True:
            page = await self("FilterLogEvents", logGroupName=GROUP, **members, **token)
            found += [event["message"] for event in page["events"]]
            if "nextToken" not in page:
                return found
            token = {"nextToken": page["nextToken"]}


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(tmp_path)


# -- groups and streams -----------------------------------------------------------------------------------------------


async def test_a_container_makes_its_group_and_stream(api: Api) -> None:
    start = int(api.clock.now * 1000)
    api.write("one", "two")
    (group,) = (await api("DescribeLogGroups"))["logGroups"]
    assert group == {
        "logGroupName": GROUP,
        "creationTime": start,
        "metricFilterCount": 0,
        "arn": f"{ARN}:*",
        "storedBytes": 8,
        "logGroupClass": "STANDARD",
        "logGroupArn": ARN,
    }
    (stream,) = (await api("DescribeLogStreams", logGroupName=GROUP))["logStreams"]
    assert stream == {
        "logStreamName": STREAM,
        "creationTime": start,
        "firstEventTimestamp": start,
        "lastEventTimestamp": start + 1000,
        "lastIngestionTime": start + 1000,
        "arn": f"{ARN}:log-stream:{STREAM}",
        "storedBytes": 8,
    }


async def test_groups_are_listed_by_prefix_part_and_page(api: Api) -> None:
    for name in ("/b/2", "/a/1", "/b/1", "c"):
        await api("CreateLogGroup", logGroupName=name)

    async def names(**members: Any) -> list[str]:
        return [group["logGroupName"] for group in (await api("DescribeLogGroups", **members))["logGroups"]]

    assert await names() == ["/a/1", "/b/1", "/b/2", "c"]
    assert await names(logGroupNamePrefix="/b") == ["/b/1", "/b/2"]
    assert await names(logGroupNamePattern="1") == ["/a/1", "/b/1"]
    assert await names(logGroupIdentifiers=[f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:c"]) == ["c"]
    assert await names(logGroupClass="DELIVERY") == []
    first = await api("DescribeLogGroups", limit=3)
    assert [group["logGroupName"] for group in first["logGroups"]] == ["/a/1", "/b/1", "/b/2"]
    last = await api("DescribeLogGroups", limit=3, nextToken=first["nextToken"])
    assert [group["logGroupName"] for group in last["logGroups"]] == ["c"] and "nextToken" not in last
    both = {"logGroupNamePrefix": "a", "logGroupNamePattern": "a"}
    assert (await api.refusal("DescribeLogGroups", **both))[0] == "InvalidParameterException"
    assert (await api.refusal("DescribeLogGroups", nextToken="x"))[1] == "The specified nextToken is invalid."


async def test_streams_are_ordered_by_name_or_by_their_last_events(api: Api) -> None:
    for stream in ("b/1", "a/2", "a/1"):
        api.write("line", stream=stream)

    async def names(**members: Any) -> list[str]:
        found = await api("DescribeLogStreams", logGroupIdentifier=ARN, **members)
        return [stream["logStreamName"] for stream in found["logStreams"]]

    assert await names() == ["a/1", "a/2", "b/1"]
    assert await names(descending=True, limit=1) == ["b/1"]
    assert await names(logStreamNamePrefix="a/") == ["a/1", "a/2"]
    assert await names(orderBy="LastEventTime") == ["b/1", "a/2", "a/1"]
    assert await names(orderBy="LastEventTime", descending=True) == ["a/1", "a/2", "b/1"]
    wrong = {"orderBy": "LastEventTime", "logStreamNamePrefix": "a"}
    assert (await api.refusal("DescribeLogStreams", logGroupName=GROUP, **wrong))[0] == "InvalidParameterException"


async def test_clients_make_and_delete_groups_and_streams_of_their_own(api: Api) -> None:
    tags = {"team": "a"}
    await api("CreateLogGroup", logGroupName="own", tags=tags, kmsKeyId="key")
    exists = "ResourceAlreadyExistsException"
    assert await api.refusal("CreateLogGroup", logGroupName="own") == (
        exists, "The specified log group already exists",
    )  # fmt: skip
    await api("CreateLogStream", logGroupName="own", logStreamName="s")
    assert (await api.refusal("CreateLogStream", logGroupName="own", logStreamName="s"))[0] == exists
    (group,) = (await api("DescribeLogGroups"))["logGroups"]
    assert group["kmsKeyId"] == "key"
    arn = {"resourceArn": group["logGroupArn"]}
    await api("TagResource", **arn, tags={"more": "b"})
    await api("UntagResource", **arn, tagKeys=["team", "absent"])
    assert await api("ListTagsForResource", **arn) == {"tags": {"more": "b"}}
    await api("PutRetentionPolicy", logGroupName="own", retentionInDays=30)
    assert (await api("DescribeLogGroups"))["logGroups"][0]["retentionInDays"] == 30
    await api("DeleteRetentionPolicy", logGroupName="own")
    assert "retentionInDays" not in (await api("DescribeLogGroups"))["logGroups"][0]
    assert (await api.refusal("PutRetentionPolicy", logGroupName="own", retentionInDays=2))[0] == (
        "InvalidParameterException"
    )
    await api("DeleteLogStream", logGroupName="own", logStreamName="s")
    assert (await api("DescribeLogStreams", logGroupName="own"))["logStreams"] == []
    await api("DeleteLogGroup", logGroupName="own")
    assert (await api("DescribeLogGroups"))["logGroups"] == []


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("DescribeLogStreams", {}),
        ("GetLogEvents", {"logStreamName": "s"}),
        ("FilterLogEvents", {}),
        ("DeleteLogGroup", {}),
        ("CreateLogStream", {"logStreamName": "s"}),
        ("PutRetentionPolicy", {"retentionInDays": 1}),
        ("PutLogEvents", {"logStreamName": "s", "logEvents": [{"timestamp": 1, "message": "m"}]}),
    ],
)
async def test_a_group_that_is_not_there(api: Api, operation: str, members: dict[str, Any]) -> None:
    missing = ("ResourceNotFoundException", "The specified log group does not exist.")
    assert await api.refusal(operation, logGroupName="/none", **members) == missing


async def test_a_stream_that_is_not_there(api: Api) -> None:
    api.write("line")
    missing = ("ResourceNotFoundException", "The specified log stream does not exist.")
    assert await api.refusal("GetLogEvents", logGroupName=GROUP, logStreamName="s") == missing
    assert await api.refusal("FilterLogEvents", logGroupName=GROUP, logStreamNames=[STREAM, "s"]) == missing
    assert await api.refusal("DeleteLogStream", logGroupName=GROUP, logStreamName="s") == missing


async def test_groups_are_named_by_name_or_by_arn_of_this_account_and_region(api: Api) -> None:
    api.write("line")
    for identifier in (GROUP, ARN):
        assert len((await api("FilterLogEvents", logGroupIdentifier=identifier))["events"]) == 1
    for elsewhere in (ARN.replace("us-east-1", "eu-west-1"), ARN.replace(ACCOUNT, "0" * 12)):
        assert (await api.refusal("FilterLogEvents", logGroupIdentifier=elsewhere))[0] == "ResourceNotFoundException"
    both = {"logGroupIdentifier": ARN, "logGroupName": GROUP}
    assert (await api.refusal("FilterLogEvents", **both))[0] == "InvalidParameterException"
    assert (await api.refusal("FilterLogEvents"))[0] == "InvalidParameterException"


async def test_broken_constraints_have_this_services_word(api: Api) -> None:
    code, message = await api.refusal("GetLogEvents", logGroupName="bad name", logStreamName="a:b", limit=0)
    assert code == "InvalidParameterException" and message.startswith("3 validation errors detected: ")


async def test_a_live_tail_is_refused_by_name(api: Api) -> None:
    code, message = await api.refusal("StartLiveTail", logGroupIdentifiers=[ARN])
    assert code == "UnknownOperationException" and "StartLiveTail" in message


# -- GetLogEvents -----------------------------------------------------------------------------------------------------


async def get(api: Api, **members: Any) -> tuple[list[str], str, str]:
    page = await api("GetLogEvents", logGroupName=GROUP, logStreamName=STREAM, **members)
    return [e["message"] for e in page["events"]], page["nextBackwardToken"], page["nextForwardToken"]


async def test_pages_forward_end_with_the_same_token_and_go_on_when_there_is_more(api: Api) -> None:
    api.write(*"abcde")
    first, _, token = await get(api, startFromHead=True, limit=2)
    second, _, token = await get(api, nextToken=token, limit=2)
    third, _, token = await get(api, nextToken=token, startFromHead=True, limit=2)
    assert (first, second, third) == (["a", "b"], ["c", "d"], ["e"])
    assert await get(api, nextToken=token) == ([], token.replace("f", "b"), token)
    api.write("f")
    assert (await get(Api(api.folder._root), nextToken=token))[0] == ["f"], "tokens survive a restart"


async def test_pages_backward_begin_with_the_newest(api: Api) -> None:
    api.write(*"abcde")
    newest, token, forward = await get(api, limit=2)
    middle, token, _ = await get(api, nextToken=token, limit=2)
    oldest, token, _ = await get(api, nextToken=token, limit=2)
    assert (newest, middle, oldest) == (["d", "e"], ["b", "c"], ["a"])
    assert (await get(api, nextToken=token))[:2] == ([], token)
    assert (await get(api, nextToken=forward))[0] == []


async def test_the_start_is_included_and_the_end_is_not(api: Api) -> None:
    start = int(api.clock.now * 1000)
    api.write(*"abcde")
    times = {"startTime": start + 1000, "endTime": start + 3000}
    assert (await get(api, **times))[0] == ["b", "c"]
    assert (await get(api, **times, startFromHead=True))[0] == ["b", "c"]
    assert (await get(api, endTime=start))[0] == []


async def test_an_answer_holds_a_megabyte(api: Api) -> None:
    api.write(*("x" * 400_000 for _ in range(5)))
    assert len((await get(api, startFromHead=True))[0]) == 2
    found, token = [], ""
    while not token or len(page) > 0:  # noqa: F821 - bound by the first round
        page, _, token = await get(api, startFromHead=True, **({"nextToken": token} if token else {}))
        found += page
    assert len(found) == 5


async def test_empty_lines_are_no_events_and_bad_bytes_are_replaced(api: Api) -> None:
    path = api.folder.ensure(GROUP, STREAM)
    path.write_bytes(b"\n\none\r\n\xff\xfe\nnul \0\n10%\r20%\n")
    assert (await get(api))[0] == ["one", "\ufffd\ufffd", "nul \0", "10%\r20%"]


@pytest.mark.parametrize("token", ["x", "f/1", "g/" + "0" * 56, "f/" + "٣" * 56])
async def test_a_token_of_nobodys_is_refused(api: Api, token: str) -> None:
    api.write("line")
    refused = ("InvalidParameterException", "The specified nextToken is invalid.")
    assert await api.refusal("GetLogEvents", logGroupName=GROUP, logStreamName=STREAM, nextToken=token) == refused
    assert await api.refusal("FilterLogEvents", logGroupName=GROUP, nextToken=token) == refused


# -- FilterLogEvents --------------------------------------------------------------------------------------------------


async def test_events_of_all_streams_come_by_time_in_pages(api: Api) -> None:
    for number in range(9):
        api.write(f"{number}", stream=f"s{number % 3}")
    everything = [str(number) for number in range(9)]
    for limit in (1, 2, 4, 9, 10):
        assert await api.messages(limit=limit) == everything
        assert await api.messages(limit=limit, startFromHead=False) == everything[::-1]
    assert await api.messages(logStreamNames=["s0", "s2", "s0"]) == ["0", "2", "3", "5", "6", "8"]
    assert await api.messages(logStreamNamePrefix="s1", limit=1) == ["1", "4", "7"]
    wrong = {"logStreamNames": ["s0"], "logStreamNamePrefix": "s"}
    assert (await api.refusal("FilterLogEvents", logGroupName=GROUP, **wrong))[0] == "InvalidParameterException"


async def test_both_ends_of_a_search_are_included(api: Api) -> None:
    start = int(api.clock.now * 1000)
    api.write(*"abcde")
    times = {"startTime": start + 1000, "endTime": start + 3000}
    assert await api.messages(**times) == ["b", "c", "d"]
    assert await api.messages(**times, startFromHead=False, limit=1) == ["d", "c", "b"]
    old = {"startTime": 1_600_000_000_000, "startFromHead": False}
    assert (await api.refusal("FilterLogEvents", logGroupName=GROUP, **old))[0] == "InvalidParameterException"


async def test_patterns_choose_events(api: Api) -> None:
    api.write("ERROR one", '{"level": "ERROR", "ms": 12}', "1.1.1.1 GET 404", "ERROR health")
    assert await api.messages(filterPattern="ERROR -health", limit=1) == ["ERROR one", '{"level": "ERROR", "ms": 12}']
    assert await api.messages(filterPattern="{ $.ms > 10 }") == ['{"level": "ERROR", "ms": 12}']
    assert await api.messages(filterPattern="[ip, verb, status = 4*]") == ["1.1.1.1 GET 404"]
    assert (await api.refusal("FilterLogEvents", logGroupName=GROUP, filterPattern="{"))[0] == (
        "InvalidParameterException"
    )


async def test_a_long_search_goes_on_with_the_next_call(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clary.api.cloudwatch.log_events._SCAN", 20)
    api.write(*(f"line number {n}" for n in range(6)), "needle")
    page = await api("FilterLogEvents", logGroupName=GROUP, filterPattern="needle")
    assert page["events"] == [] and page["nextToken"]
    assert await api.messages(filterPattern="needle") == ["needle"]


async def test_who_asks_as_aws_logs_tail_does_sees_every_line_once(api: Api) -> None:
    """The client remembers the ids of the newest time, and asks for what is not older than that."""
    files = [api.folder.ensure(GROUP, f"AllTraffic/i-{n}") for n in range(3)]
    shown: list[str] = []
    start, known = 0, set()
    written = 0
    for round in range(30):
        for n, file in enumerate(files):
            with file.open("ab") as process:
                process.write(b"%d:%d\n%d:" % (n, 2 * round, n))  # and half a line, which ends in the next round
                if (round + n) % 3:
                    process.write(b"half\n%d:" % n)
                    written += 1
                process.write(b"end\n" if round == 29 else b"%d\n%d:x" % (2 * round + 1, n))
        api.clock.now += 0.5
        for event in (await api("FilterLogEvents", logGroupName=GROUP, startTime=start, interleaved=True))["events"]:
            if (event["timestamp"], event["eventId"]) not in known:
                known.add((event["timestamp"], event["eventId"]))
                shown.append(f"{event['logStreamName']} {event['eventId']} {event['message']}")
            start = max(start, event["timestamp"])
    everything = sum(file.read_bytes().count(b"\n") for file in files)
    assert len(shown) == len(set(shown)) == everything
    assert sum("half" in line for line in shown) == written


# -- PutLogEvents -----------------------------------------------------------------------------------------------------


def events(api: Api, *seconds: float) -> list[dict[str, Any]]:
    return [{"timestamp": int((api.clock.now + at) * 1000), "message": f"at {at}"} for at in seconds]


async def put(api: Api, logged: list[dict[str, Any]]) -> dict[str, Any]:
    return await api("PutLogEvents", logGroupName=GROUP, logStreamName=STREAM, logEvents=logged)


@pytest.fixture
async def own(api: Api) -> Api:
    await api("CreateLogGroup", logGroupName=GROUP)
    await api("CreateLogStream", logGroupName=GROUP, logStreamName=STREAM)
    return api


async def test_what_clients_put_can_be_read(own: Api) -> None:
    traceback = {"timestamp": int(own.clock.now * 1000), "message": "Traceback:\n  line é\n"}
    assert "rejectedLogEventsInfo" not in await put(own, [*events(own, -7200), traceback])
    page = await own("GetLogEvents", logGroupName=GROUP, logStreamName=STREAM)
    assert [(e["timestamp"], e["message"]) for e in page["events"]] == [
        (int((own.clock.now - 7200) * 1000), "at -7200"),
        (traceback["timestamp"], traceback["message"]),
    ]


async def test_events_too_old_and_too_new_are_named_and_left_out(own: Api) -> None:
    day = 86_400
    assert (await put(own, events(own, -15 * day, -10, 7100, 7300)))["rejectedLogEventsInfo"] == {
        "tooNewLogEventStartIndex": 3,
        "tooOldLogEventEndIndex": 1,
    }
    assert await own.messages() == ["at -10", "at 7100"]
    await own("PutRetentionPolicy", logGroupName=GROUP, retentionInDays=1)
    assert (await put(own, events(own, -2 * day)))["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}


async def test_batches_have_rules(own: Api) -> None:
    where = {"logGroupName": GROUP, "logStreamName": STREAM}
    chronological = "Log events in a single PutLogEvents request must be in chronological order."
    assert await own.refusal("PutLogEvents", **where, logEvents=events(own, 0, -1)) == (
        "InvalidParameterException", chronological,
    )  # fmt: skip
    assert "24 hours" in (await own.refusal("PutLogEvents", **where, logEvents=events(own, -90_000, 0)))[1]
    large = [{"timestamp": int(own.clock.now * 1000), "message": "x" * 600_000}] * 2
    assert "1048576" in (await own.refusal("PutLogEvents", **where, logEvents=large))[1]
    assert await own.messages() == []


# -- policies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "request_", "resource"),
    [
        ("DescribeLogGroups", {}, "log-group::log-stream:"),
        ("DescribeLogGroups", {"logGroupNamePrefix": "/a"}, "log-group:/a:log-stream:"),
        ("FilterLogEvents", {"logGroupName": "/a"}, "log-group:/a:log-stream:"),
        ("FilterLogEvents", {"logGroupIdentifier": ARN}, f"log-group:{GROUP}:log-stream:"),
        ("PutLogEvents", {"logGroupName": "/a", "logStreamName": "b/c"}, "log-group:/a:log-stream:b/c"),
        ("ListTagsForResource", {"resourceArn": ARN}, f"log-group:{GROUP}:log-stream:"),
    ],
)
def test_what_policies_are_asked(operation: str, request_: dict[str, Any], resource: str) -> None:
    asked = inquiry(operation, request_, PARTITION, {})
    assert (asked.action, asked.resource) == (f"logs:{operation}", f"arn:aws:logs:us-east-1:{ACCOUNT}:{resource}")


async def test_names_that_no_file_can_have_are_refused(own: Api) -> None:
    code, message = await own.refusal("CreateLogStream", logGroupName=GROUP, logStreamName="s" * 300)
    assert code == "InvalidParameterException" and "too long" in message
    with pytest.raises(AwsError):
        own.folder.path("/" + "g" * 300, "s")
