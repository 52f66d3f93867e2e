"""An SNS that is not ours: moto's server, with a queue behind a topic to look at what was published."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import boto3

KEY, SECRET = "AKIASNS", "sns-secret"


class Sns:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.topic = str(self._client("sns").create_topic(Name="results")["TopicArn"])
        self._queue = self._client("sqs").create_queue(QueueName="seen")["QueueUrl"]
        arn = "arn:aws:sqs:us-east-1:123456789012:seen"
        self._client("sns").subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)

    def _client(self, service: str) -> Any:
        return boto3.client(
            service, endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
        )

    def messages(self) -> list[dict[str, Any]]:
        """Take what was published since the last time."""
        found = []
        sqs = self._client("sqs")
        while batch := sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages", ()):
            for message in batch:
                found.append(json.loads(json.loads(message["Body"])["Message"]))
                sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
        return found


@contextlib.contextmanager
def running_sns() -> Iterator[Sns]:
    """Run moto's server, which takes a few seconds to start."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, "moto's server has ended"
            assert time.monotonic() < deadline, "moto's server does not listen"
            time.sleep(0.1)
        yield Sns(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
