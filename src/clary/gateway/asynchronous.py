"""InvokeEndpointAsync: a request that is checked here and kept by the control plane, which acknowledges it.

Once its caller has been told 202 the request is in the store, and is answered or fails in S3 whatever dies meanwhile.
"""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any, ClassVar
from uuid import uuid4

from botocore.model import StructureShape

from clary.core.asynchronous import DEFAULT_TIMEOUT, DEFAULT_TTL, AsyncRequest, Refusal, locations
from clary.core.routing import AsyncInference, EndpointRoute
from clary.errors import AwsError, SerializationException
from clary.gateway import answers
from clary.gateway.connection import status_line
from clary.gateway.routed import Routed
from clary.wire import constraints, model, rest

_CODE = "ValidationError"
"""The runtime's word for what the control plane calls ValidationException."""


class AsyncInvocation(Routed):
    """One InvokeEndpointAsync request."""

    SUFFIX: ClassVar[bytes] = b"/async-invocations"
    ACTION: ClassVar[str] = "sagemaker:InvokeEndpointAsync"

    def _start(self, body: bytes) -> None:
        self._endpoint = self._named()
        try:
            self._authenticate(body)
            request, inline = self._read(body)
        except AwsError as error:
            self._answer(self._render(error, keep_alive=self._head.keep_alive))
            return
        self._state.spawn(self._keep(request, inline))

    def _read(self, body: bytes) -> tuple[AsyncRequest, bytes]:
        """Read and check everything. Raises AwsError (ValidationError)."""
        given = _given(self._head.headers, body)
        route = self._find_route()
        config = route.asynchronous
        if config is None:
            raise answers.not_asynchronous(self._endpoint)
        if ("Body" in given) == ("InputLocation" in given):
            raise answers.validation_error("Specify either InputLocation or Body, and not both.")
        try:
            return _request(route, config, given), given.get("Body", b"")
        except Refusal as refusal:
            raise answers.validation_error(str(refusal)) from None

    async def _keep(self, request: AsyncRequest, body: bytes) -> None:
        try:
            await self._state.deferrals.add(request, body)
            answer = self._accepted(request)
        except AwsError as error:
            answer = self._render(error, keep_alive=self._head.keep_alive)
        if not self._done:
            self._answer(answer)

    def _accepted(self, request: AsyncRequest) -> bytes:
        body = json.dumps({"InferenceId": request.inference_id}).encode()
        lines = [
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
            b"x-amzn-RequestId: " + self._request_id.encode(),
            b"X-Amzn-SageMaker-OutputLocation: " + request.output_location.encode(),
        ]
        if request.failure_location:
            lines.append(b"X-Amzn-SageMaker-FailureLocation: " + request.failure_location.encode())
        if not self._head.keep_alive:
            lines.append(b"Connection: close")
        elif not self._head.modern:
            lines.append(b"Connection: keep-alive")
        return b"\r\n".join([status_line(202), *lines]) + b"\r\n\r\n" + body

    def _answer(self, answer: bytes) -> None:
        self._done = True
        self._client.write(answer)
        self._client.finish()

    # -- the client's side -------------------------------------------------------------------------------------------

    def lost(self) -> None:
        self._done = True  # whether the request is kept nobody will learn; it may be

    def pause(self) -> None: ...  # an answer is one small piece

    def resume(self) -> None: ...


def _given(headers: dict[bytes, bytes], body: bytes) -> dict[str, Any]:
    """Decode the request and check it by the service model. Raises AwsError (ValidationError)."""
    try:
        given = rest.decode(_shape(), headers, body)
    except SerializationException as error:
        raise answers.validation_error(error.message) from None
    constraints.check(_shape(), {"EndpointName": "checked", **given}, _CODE)  # the route knows better than a pattern
    return given


@cache
def _shape() -> StructureShape:
    shape = model.operation("sagemaker-runtime", "InvokeEndpointAsync").input_shape
    assert shape is not None
    return shape


def _request(route: EndpointRoute, config: AsyncInference, given: dict[str, Any]) -> AsyncRequest:
    id, now = str(uuid4()), time.time()
    output, failure = locations(config, id, given.get("S3OutputPathExtension", ""), given.get("Filename", ""))
    return AsyncRequest(
        id=id,
        queue=config.queue,
        endpoint=route.name,
        inference_id=given.get("InferenceId") or str(uuid4()),
        accepted_at=now,
        expires_at=now + given.get("RequestTTLSeconds", DEFAULT_TTL),
        timeout=float(given.get("InvocationTimeoutSeconds", DEFAULT_TIMEOUT)),
        output_location=output,
        failure_location=failure,
        input_location=given.get("InputLocation", ""),
        content_type=given.get("ContentType", ""),
        accept=given.get("Accept", ""),
        custom_attributes=given.get("CustomAttributes", ""),
        success_topic=config.success_topic,
        error_topic=config.error_topic,
        include_success=config.include_success,
        include_error=config.include_error,
        role_arn=route.variants[0].role_arn if route.variants else "",
    )
