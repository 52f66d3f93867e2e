"""InvokeEndpointWithResponseStream: the container's answer as it comes, in AWS's event-stream framing.

What fails before the answer begins is an ordinary error; what fails afterwards is the stream's last event.
"""

from __future__ import annotations

from typing import ClassVar

from clary.gateway.invocation import Invocation
from clary.gateway.passage import CARRIED, Lines
from clary.wire import eventstream

_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"


class ResponseStream(Invocation):
    """One InvokeEndpointWithResponseStream request."""

    SUFFIX: ClassVar[bytes] = b"/invocations-response-stream"
    ACTION: ClassVar[str] = "sagemaker:InvokeEndpointWithResponseStream"
    LINES: ClassVar[Lines] = (*CARRIED, (b"x-amzn-sagemaker-accept", b"\r\nAccept: "))
    OPENS_SESSIONS: ClassVar[bool] = False
    CAPTURES: ClassVar[bool] = False

    def _begin_answer(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if not 200 <= status < 300:
            return
        assert self._variant is not None
        out = [b"HTTP/1.1 200 OK\r\nContent-Type: ", eventstream.CONTENT_TYPE,
               b"\r\nx-amzn-RequestId: ", self._request_id.encode(),
               b"\r\nx-Amzn-Invoked-Production-Variant: ", self._variant.name.encode()]  # fmt: skip
        for name, value in headers:
            lower = name.lower()
            if lower == b"content-type":
                out += (b"\r\nX-Amzn-SageMaker-Content-Type: ", value)
            elif lower == _ATTRIBUTES:
                out += (b"\r\nX-Amzn-SageMaker-Custom-Attributes: ", value)
        self._open(out, None)

    def body(self, data: bytes) -> None:
        super().body(eventstream.payload_part(data) if self._passing else data)

    def interrupt(self) -> None:
        """End what was begun: this gateway is about to go."""
        if self._sent and self._passage is not None:
            self._passage.cancel()
            self._end_with("InternalStreamFailure", {"Message": "The server is being stopped."})

    def _break_off(self, *, overdue: bool) -> None:
        container = self._container
        if overdue:
            message = f"Your model {container} did not complete sending the inference response in the allotted time."
            self._end_with("ModelStreamError", {"Message": message, "ErrorCode": "ModelInvocationTimeExceeded"})
        else:
            message = f"The connection to your model {container} was broken before its response was complete."
            self._end_with("ModelStreamError", {"Message": message, "ErrorCode": "StreamBroken"})

    def _end_with(self, exception: str, members: dict[str, str]) -> None:
        """End the stream with an error: a last message, then the end that HTTP knows."""
        super().body(eventstream.exception(exception, members))
        self._end_answer(failed=exception == "ModelStreamError")

    def _arm(self) -> None:
        self._state.stream_deadlines[self] = self._state.loop.time() + self._state.stream_timeout

    def _disarm(self) -> None:
        self._state.stream_deadlines.pop(self, None)
