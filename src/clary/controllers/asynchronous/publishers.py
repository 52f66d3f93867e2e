"""Where notifications go: to SNS, to whoever listens at a URL, or into a file."""

from __future__ import annotations

import asyncio
import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import aiohttp

from clary.core.notification import envelope
from clary.errors import Fatal, Transient
from clary.wire.canonical import strict_resource
from clary.wire.signing import Signer

_TIMEOUT = aiohttp.ClientTimeout(total=30)
_VERSION = "2010-03-31"
"""Of SNS's API."""
LARGEST_FILE = 64 * 1024 * 1024
"""Bytes after which a file is moved aside, in place of the one that was moved before it."""


class Publisher(Protocol):
    """Publishes to topics."""

    async def publish(self, topic: str, message: str, id: str) -> None:
        """Return once it is published. Raises Fatal where it never will be, or Transient.

        `id` is the message's, each time that it is published; SNS makes its own.
        """
        ...


class Sns:
    """Publishes by SNS's API. A topic's region is in its ARN."""

    def __init__(self, endpoint: str, access_key_id: str, secret: str) -> None:
        self._parts = urlsplit(endpoint)
        self._key = (access_key_id, secret)
        self._signers: dict[str, Signer] = {}

    async def publish(self, topic: str, message: str, id: str) -> None:
        """Call Publish. Raises Fatal or Transient."""
        fields = {"Action": "Publish", "Version": _VERSION, "TopicArn": topic, "Message": message}
        body = urlencode(fields).encode()
        path = self._parts.path or "/"
        headers = {
            b"host": self._parts.netloc.encode(),
            b"content-type": b"application/x-www-form-urlencoded; charset=utf-8",
        }
        resource = strict_resource(path.encode(), b"", s3=False)
        signed = self._signer(topic).sign("POST", resource, headers, sha256(body).hexdigest())
        url = f"{self._parts.scheme}://{self._parts.netloc}{path}"
        await _post(url, body, {name.decode(): value.decode() for name, value in signed.items()})

    def _signer(self, topic: str) -> Signer:
        region = topic.split(":")[3]
        if region not in self._signers:
            self._signers[region] = Signer(*self._key, region, "sns", time.time)
        return self._signers[region]


class Webhook:
    """Posts what SNS posts to whoever subscribed a URL; unsigned."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def publish(self, topic: str, message: str, id: str) -> None:
        """Post to the URL. Raises Fatal or Transient."""
        headers = {
            "content-type": "text/plain; charset=UTF-8",  # SNS's own
            "x-amz-sns-message-type": "Notification",
            "x-amz-sns-message-id": id,
            "x-amz-sns-topic-arn": topic,
        }
        await _post(self._url, json.dumps(envelope(topic, message, id, time.time())).encode(), headers)


class File:
    """Appends the same, a line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one_by_one = asyncio.Lock()
        """Two that both find the file full would move two files aside, the second in place of the first."""

    async def publish(self, topic: str, message: str, id: str) -> None:
        """Append a line. Raises Transient."""
        line = json.dumps(envelope(topic, message, id, time.time())) + "\n"
        try:
            async with self._one_by_one:
                await asyncio.to_thread(self._append, line)
        except OSError as error:
            raise Transient(f"{self._path}: {error.strerror}", retry_after=5.0) from error

    def _append(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(line)
            full = file.tell() > LARGEST_FILE
        if full:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))


async def _post(url: str, body: bytes, headers: dict[str, str]) -> None:
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            if 200 <= answer.status < 300:
                return
            said = (await answer.content.read(2000)).decode("utf-8", "replace").strip()
            status = answer.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Transient(f"{url} does not answer: {str(error) or type(error).__name__}", retry_after=5.0) from error
    if status in (408, 429) or status >= 500 or "Throttl" in said:
        raise Transient(f"{url} answered {status}: {said}", retry_after=5.0)
    raise Fatal(f"{url} answered {status}: {said}")
