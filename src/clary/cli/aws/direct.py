"""The short way to call: one signed JSON request over plain HTTP, without botocore.

It is for the straight road alone: JSON protocol, `http://`, static keys, no proxy, an answer that is a success or a
final refusal. Of everything else `call` makes nothing, and botocore does it, retries included. It exists because
importing botocore takes longer than all the rest of a command.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from argparse import Namespace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from clary.cli.aws.failures import ServiceError
from clary.cli.aws.place import Place
from clary.cli.aws.profile import Profile
from clary.cli.aws.shapes import Operation, Shape
from clary.wire.signing import Signer

TIMEOUT = 60
RETRIED = {
    *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException"),
    *("TooManyRequestsException", "LimitExceededException", "RequestLimitExceeded", "BandwidthLimitExceeded"),
    *("ProvisionedThroughputExceededException", "EC2ThrottledException", "SlowDown"),
    *("TransactionInProgressException", "PriorRequestNotComplete", "RequestTimeout", "RequestTimeoutException"),
}
"""What botocore's standard retry mode tries again."""
_TOKENS = {"AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"}
_REGION = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
"""As a part of a host's name; botocore words what it says of any other."""


def serves(operation: Operation, place: Place, options: Namespace, profile: Profile) -> bool:
    """Tell whether a call is on the straight road."""
    return (
        operation.metadata["protocol"] == "json"
        and (place.endpoint or "").startswith("http://")
        and _REGION.fullmatch(place.region or "") is not None
        and (place.credentials is not None or not place.signed)
        and not options.debug
        and (place.found or not _has_proxy())
        and profile.is_plain
        and _TOKENS.isdisjoint(os.environ)
    )


def call(
    operation: Operation, request: dict[str, Any], place: Place, options: Namespace, timestamps: str
) -> dict[str, Any] | None:
    """Call, and give the answer; None where botocore has to. `timestamps` is `iso8601` or `wire`.

    Raises ServiceError for a refusal that another attempt would not change.
    """
    try:
        status, body = _send(operation, json.dumps(request).encode(), place, options)
        answer = json.loads(body) if body else {}
    except (OSError, http.client.HTTPException, ValueError):
        return None
    if not isinstance(answer, dict) or status >= 500 or status in (301, 307, 429):
        return None
    if status < 300:
        return _parse(answer, operation.output, timestamps) if operation.output else {}
    code = str(answer.get("__type", status)).split(":")[0].rsplit("#")[-1]
    if code in RETRIED:
        return None
    message = answer.get("message", answer.get("Message", ""))
    raise ServiceError(f"An error occurred ({code}) when calling the {operation.name} operation: {message}")


def _send(operation: Operation, body: bytes, place: Place, options: Namespace) -> tuple[int, bytes]:
    url = urlsplit(place.endpoint or "")
    headers = {
        b"host": url.netloc.rpartition("@")[2].encode(),
        b"content-type": f"application/x-amz-json-{operation.metadata['jsonVersion']}".encode(),
        b"x-amz-target": f"{operation.metadata['targetPrefix']}.{operation.name}".encode(),
        b"user-agent": b"clary",
    }
    path = (url.path or "/").encode()
    if place.credentials is not None:
        keys = place.credentials
        service = operation.metadata.get("signingName", operation.metadata["endpointPrefix"])
        signer = Signer(keys.access_key_id, keys.secret_access_key, str(place.region), service, time.time)
        headers = signer.sign("POST", (path, b""), headers, sha256(body).hexdigest())
    connecting = options.cli_connect_timeout
    reading = options.cli_read_timeout
    timeout = TIMEOUT if connecting is None else connecting or None
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout)
    try:
        connection.connect()
        connection.sock.settimeout(TIMEOUT if reading is None else reading or None)
        connection.request("POST", path.decode(), body, {name.decode(): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _parse(value: Any, shape: Shape, timestamps: str) -> Any:
    """Give the part of an answer that the model knows, in the model's order."""
    if shape.type == "structure" and isinstance(value, dict):
        return {
            name: _parse(value[name], member, timestamps)
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if shape.type == "list" and isinstance(value, list):
        return [_parse(item, shape.member, timestamps) for item in value]
    if shape.type == "map" and isinstance(value, dict):
        return {name: _parse(item, shape.value, timestamps) for name, item in value.items()}
    if shape.type == "timestamp" and timestamps == "iso8601" and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).astimezone().isoformat()
    return value


def _has_proxy() -> bool:
    return any(name.lower() in ("http_proxy", "all_proxy") and value for name, value in os.environ.items())
