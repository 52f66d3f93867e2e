"""Logs of real containers with the real clients: while they run, while Clary is down, and when all is gone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import Clary, model_archive, running, wait_until
from tests.acceptance.test_identities import made_key

pytestmark = pytest.mark.acceptance

GROUP = "/aws/sagemaker/Endpoints/{}"


def aws(clary: Clary, *arguments: str) -> Any:
    done = clary.aws("logs", *arguments)
    assert done.returncode == 0, f"aws logs {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout) if done.stdout else None


def lines_of(clary: Clary, name: str) -> list[str]:
    pages = clary.client("logs").get_paginator("filter_log_events").paginate(logGroupName=GROUP.format(name))
    return [event["message"] for page in pages for event in page["events"]]


@contextlib.contextmanager
def output_of(clary: Clary, name: str) -> Iterator[int]:
    """Give the descriptor that one of an endpoint's processes writes to."""
    pid = clary.invoke(name)["pid"]
    descriptor = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


def test_the_aws_cli_finds_and_reads_the_logs_of_an_endpoint(clary: Clary) -> None:
    before = int(time.time() * 1000)
    clary.create("logged", count=2)
    clary.wait("logged")
    group = GROUP.format("logged")
    (found,) = aws(clary, "describe-log-groups", "--log-group-name-prefix", group)["logGroups"]
    assert found["arn"] == f"arn:aws:logs:us-east-1:000000000000:log-group:{group}:*"
    streams = aws(clary, "describe-log-streams", "--log-group-name", group, "--order-by", "LastEventTime")["logStreams"]
    assert len(streams) == 2
    assert all(stream["logStreamName"].startswith("AllTraffic/i-") for stream in streams)
    read = ("get-log-events", "--log-group-name", group, "--log-stream-name", streams[0]["logStreamName"])
    page = aws(clary, *read, "--start-from-head")
    (event,) = page["events"]
    assert event["message"] == "loading logged"
    assert before - 1000 <= event["timestamp"] <= time.time() * 1000
    again = aws(clary, *read, "--next-token", page["nextForwardToken"])
    assert (again["events"], again["nextForwardToken"]) == ([], page["nextForwardToken"])
    assert len(aws(clary, "filter-log-events", "--log-group-name", group)["events"]) == 2
    matching = ("filter-log-events", "--log-group-name", group, "--filter-pattern")
    assert len(aws(clary, *matching, "?loading ?nothing")["events"]) == 2
    assert aws(clary, *matching, "loading -logged")["events"] == []
    gone = clary.aws("logs", "get-log-events", "--log-group-name", "/none", "--log-stream-name", "s")
    assert gone.returncode != 0
    assert "ResourceNotFoundException" in gone.stderr and "The specified log group does not exist." in gone.stderr
    clary.delete("logged")
    assert lines_of(clary, "logged") == ["loading logged"] * 2, "logs outlive their endpoint"
    shown = clary.clary("logs", "logged", "--filter", "loading", "--timestamps", "--since", "10m")
    assert shown.stdout.count("loading logged") == 2, shown.stderr
    aws(clary, "delete-log-group", "--log-group-name", group)
    assert aws(clary, "describe-log-groups", "--log-group-name-prefix", group)["logGroups"] == []


def test_the_log_that_a_model_error_names_is_there(clary: Clary) -> None:
    clary.create("failing")
    clary.wait("failing")
    with pytest.raises(ClientError) as caught:
        clary.invoke("failing", b"fail500")
    found = clary.client("logs").filter_log_events(logGroupIdentifier=caught.value.response["LogStreamArn"])
    assert [event["message"] for event in found["events"]] == ["loading failing"]
    clary.delete("failing")


def test_clients_of_containers_write_logs_of_their_own(clary: Clary) -> None:
    logs = clary.client("logs")
    logs.create_log_group(logGroupName="own/group", tags={"team": "a"})
    logs.create_log_stream(logGroupName="own/group", logStreamName="2026/01/[$LATEST]x")
    where = {"logGroupName": "own/group", "logStreamName": "2026/01/[$LATEST]x"}
    now = int(time.time() * 1000)
    logs.put_log_events(**where, logEvents=[{"timestamp": now + n, "message": f"event {n}\n..."} for n in range(3)])
    found = logs.get_log_events(**where, startFromHead=True)["events"]
    assert [(e["timestamp"] - now, e["message"]) for e in found] == [(n, f"event {n}\n...") for n in range(3)]
    logs.put_retention_policy(logGroupName="own/group", retentionInDays=1)
    (group,) = logs.describe_log_groups(logGroupNamePrefix="own/")["logGroups"]
    assert group["retentionInDays"] == 1
    assert logs.list_tags_for_resource(resourceArn=group["logGroupArn"])["tags"] == {"team": "a"}
    with pytest.raises(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName="own/group")
    logs.delete_log_group(logGroupName="own/group")


def test_policies_hold_for_logs(clary: Clary) -> None:
    clary.create("secret")
    clary.wait("secret")
    allowed = {"Effect": "Allow", "Action": "logs:*", "Resource": "arn:aws:logs:*:*:log-group:/other:*"}
    reader = made_key(clary, "reader", {"Statement": allowed}).client("logs", endpoint_url=clary.url)
    with pytest.raises(ClientError, match="not authorized to perform: logs:FilterLogEvents on resource: arn:aws:logs:"):
        reader.filter_log_events(logGroupName=GROUP.format("secret"))
    with pytest.raises(reader.exceptions.ResourceNotFoundException):
        reader.filter_log_events(logGroupName="/other")
    clary.clary("keys", "delete", "reader")
    clary.delete("secret")


def test_lines_go_on_and_keep_their_times_while_the_control_plane_is_down(own_clary: Clary) -> None:
    own_clary.create("steady")
    own_clary.wait("steady")
    with output_of(own_clary, "steady") as output:
        os.write(output, b"before\n")
        assert lines_of(own_clary, "steady")[-1] == "before"
        logs = own_clary.client("logs")
        seen = logs.filter_log_events(logGroupName=GROUP.format("steady"))["events"]
        killed = own_clary.child("clary.server control")
        os.kill(killed, signal.SIGKILL)
        os.write(output, b"while it was down\n")
        assert "while it was down" in own_clary.clary("logs", "steady").stdout, "read without Clary's help"
        wait_until(lambda: len(lines_of(own_clary, "steady")) == 3, "the line is there", own_clary.output)
        after = logs.filter_log_events(logGroupName=GROUP.format("steady"))["events"]
        assert after[:2] == seen, "what was shown stays what it was"
        assert after[2]["timestamp"] > seen[1]["timestamp"]
    own_clary.delete("steady")


def test_a_chatty_model_keeps_its_log_within_the_bound() -> None:
    with running("--log-size", "1") as small:
        small.create("chatty", archive=model_archive("chatty"))
        small.wait("chatty")
        (file,) = (small.data / "logs").rglob("*.log")
        with output_of(small, "chatty") as output:
            for number in range(400):
                os.write(output, b"%05d " % number + b"x" * 9993 + b"\n")
            # Within the bound, but for parts of blocks: then it is not cut again.
            wait_until(lambda: file.stat().st_blocks * 512 <= 1040 * 1024, "the log is cut", small.output)
            os.write(output, b"last\n")
        messages = lines_of(small, "chatty")
        assert messages[-1] == "last" and messages[-2].startswith("00399 ")
        numbers = [int(message[:5]) for message in messages[:-1]]
        assert numbers == list(range(numbers[0], 400)) and 80 <= len(numbers) <= 105
        small.delete("chatty")


def aws_version_2() -> str | None:
    """Find version 2 of the aws CLI, which has `logs tail`."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        program = shutil.which("aws", path=folder)
        if program:
            said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=300)
            if said.stdout.startswith("aws-cli/2"):
                return program
    return None


def test_aws_logs_tail_follows(clary: Clary, tmp_path: Path) -> None:
    program = aws_version_2()
    if program is None:
        pytest.skip("`aws logs tail` is of version 2 of the aws CLI: put it on the PATH")
    clary.create("tailed", count=2)
    clary.wait("tailed")
    # Named, since versions before 2.13 do not know the variable.
    command = [program, "--endpoint-url", clary.url, "logs", "tail", GROUP.format("tailed"), "--follow"]
    shown = tmp_path / "shown"
    with shown.open("w") as out, output_of(clary, "tailed") as output:
        tail = subprocess.Popen(
            command, env={**clary.environment, "PYTHONUNBUFFERED": "1"}, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            wait_until(lambda: shown.read_text().count("loading tailed") == 2, "it begins", shown.read_text)
            for number in range(200):
                os.write(output, b"tick %d\n" % number)
                time.sleep(0.02)
            wait_until(lambda: "tick 199\n" in shown.read_text(), "it follows", shown.read_text)
        finally:
            tail.terminate()
            tail.wait(300)
    ticks = [line.partition("tick ")[2] for line in shown.read_text().splitlines() if "tick " in line]
    assert ticks == [str(number) for number in range(200)], "every line once, in order"
    clary.delete("tailed")
