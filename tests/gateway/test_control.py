"""What the gateway does to requests for the control plane on their way."""

from __future__ import annotations

import gzip

import pytest

from clary.errors import AwsError
from clary.gateway.control import MAX_BODY, _unpacked


def test_compressed_bodies_are_unpacked_and_others_left_alone() -> None:
    assert _unpacked(b"gzip", gzip.compress(b"body")) == b"body"
    assert _unpacked(b" GZIP ", gzip.compress(b"body")) == b"body"
    assert _unpacked(b"", b"body") == b"body"
    assert _unpacked(b"identity", b"body") == b"body"


def test_what_unpacks_to_more_than_a_request_may_have_is_refused() -> None:
    with pytest.raises(AwsError) as refused:
        _unpacked(b"gzip", gzip.compress(bytes(MAX_BODY + 1)))
    assert refused.value.status == 413
    assert len(_unpacked(b"gzip", gzip.compress(bytes(MAX_BODY)))) == MAX_BODY


@pytest.mark.parametrize("body", [b"", b"no gzip", gzip.compress(b"body" * 100, mtime=0)[:-9]])
def test_what_is_no_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(AwsError) as refused:
        _unpacked(b"gzip", body)
    assert (refused.value.status, refused.value.code) == (400, "SerializationException")
