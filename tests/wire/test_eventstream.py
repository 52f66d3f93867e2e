"""Frames that botocore's decoder reads."""

from __future__ import annotations

import json

from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from clary.wire import eventstream


def decoded(raw: bytes) -> list[tuple[dict[str, str], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(raw)
    return [(event.headers, event.payload) for event in buffer]


@given(st.lists(st.binary(max_size=2000), max_size=5))
def test_payload_parts_are_the_bytes_with_the_headers_of_the_protocol(pieces: list[bytes]) -> None:
    headers = {
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    assert decoded(b"".join(map(eventstream.payload_part, pieces))) == [(headers, piece) for piece in pieces]


def test_more_than_a_message_takes_becomes_several() -> None:
    data = bytes(eventstream.MAX_PAYLOAD) + b"end"
    parts = decoded(eventstream.payload_part(data))
    assert [len(payload) for _, payload in parts] == [eventstream.MAX_PAYLOAD, 3]


def test_an_exception_is_a_message_of_its_own_type() -> None:
    [(headers, payload)] = decoded(eventstream.exception("ModelStreamError", {"Message": "Grüße", "ErrorCode": "E"}))
    assert headers == {
        ":message-type": "exception",
        ":exception-type": "ModelStreamError",
        ":content-type": "application/json",
    }
    assert json.loads(payload) == {"Message": "Grüße", "ErrorCode": "E"}
