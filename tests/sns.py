"""An SNS that is not ours: moto's server, with a queue behind a topic to look at what was published."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3

KEY, SECRET = "AKIASNS", "sns-secret"
_SERVER = """
import signal
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
signal.pause()
"""


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
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline()
            assert port, "moto's server has ended"
            yield Sns(f"http://127.0.0.1:{int(port)}")
        finally:
            process.kill()
