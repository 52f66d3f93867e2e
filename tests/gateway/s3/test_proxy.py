"""The S3 that a user brings: here it is another gateway, with keys of its own."""

from __future__ import annotations

import io
import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from clary.gateway.s3.proxy import S3Proxy
from clary.gateway.s3.service import S3
from tests.gateway.s3.server import KEY, REGION, SECRET, gateway

MIB = 1024 * 1024
THEIRS = {"AKIATHEIRS": "their secret"}


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "data").mkdir()
    with gateway(S3(tmp_path).handle, THEIRS) as url:
        yield url


def client(url: str, secret: str = SECRET) -> Any:
    config = Config(retries={"total_max_attempts": 1}, signature_version="s3v4")
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": secret, "region_name": REGION}
    return boto3.client("s3", endpoint_url=url, config=config, **keys)


@pytest.fixture
def s3(theirs: str) -> Iterator[Any]:
    ((key, secret),) = THEIRS.items()
    proxy = S3Proxy(theirs, key, secret, REGION)
    with gateway(proxy.handle, {KEY: SECRET}, proxy.close) as url:
        made = client(url)
        yield made
        made.close()


def status(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_objects_go_through_with_their_metadata(s3: Any) -> None:
    key = "odd key+(1)/ü"
    s3.put_object(Bucket="data", Key=key, Body=io.BytesIO(b"hello"), Metadata={"k": "v"}, ContentType="x/y")
    found = s3.get_object(Bucket="data", Key=key, Range="bytes=1-2")
    assert (found["Body"].read(), found["ContentRange"]) == (b"el", "bytes 1-2/5")
    assert (found["Metadata"], found["ContentType"]) == ({"k": "v"}, "x/y")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="data", Prefix="odd key+")["Contents"]] == [key]
    assert s3.head_object(Bucket="data", Key=key)["ContentLength"] == 5
    s3.copy_object(Bucket="data", Key="copy", CopySource={"Bucket": "data", "Key": key})
    s3.delete_objects(Bucket="data", Delete={"Objects": [{"Key": key}, {"Key": "copy"}]})
    assert s3.list_objects_v2(Bucket="data")["KeyCount"] == 0


def test_conditions_and_errors_go_through(s3: Any) -> None:
    etag = s3.put_object(Bucket="data", Key="k", Body=b"1")["ETag"]
    for call, expected in (
        (lambda: s3.put_object(Bucket="data", Key="k", Body=b"2", IfNoneMatch="*"), ("PreconditionFailed", 412)),
        (lambda: s3.get_object(Bucket="data", Key="k", IfNoneMatch=etag), ("304", 304)),
        (lambda: s3.get_object(Bucket="data", Key="nope"), ("NoSuchKey", 404)),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert status(caught) == expected


def test_large_objects_go_through_in_parts(s3: Any) -> None:
    data = os.urandom(12 * MIB)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(io.BytesIO(data), "data", "big", Config=config)
    received = io.BytesIO()
    s3.download_fileobj("data", "big", received, Config=config)
    assert received.getvalue() == data


def test_a_presigned_url_is_verified_here_and_signed_anew(s3: Any) -> None:
    named = {"Bucket": "data", "Key": "k"}
    request = urllib.request.Request(s3.generate_presigned_url("put_object", named), data=b"hello", method="PUT")
    urllib.request.urlopen(request).close()
    with urllib.request.urlopen(s3.generate_presigned_url("get_object", named)) as answer:
        assert answer.read() == b"hello"


def test_a_body_that_is_not_what_was_signed_is_refused(s3: Any) -> None:
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="data", Key="k", Body=b"hello", ContentMD5="A" * 22 + "==")
    assert status(caught) == ("BadDigest", 400)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="data", Key="k", Body=b"hello", ChecksumCRC32="AAAAAA==")
    assert status(caught) == ("BadDigest", 400)


def test_a_stranger_is_refused_before_anything_goes_on(s3: Any) -> None:
    stranger = client(s3.meta.endpoint_url, "wrong")
    with pytest.raises(ClientError) as caught:
        stranger.list_buckets()
    assert status(caught) == ("SignatureDoesNotMatch", 403)
    stranger.close()


def test_an_endpoint_that_does_not_answer_is_said_to_be_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        proxy = S3Proxy(f"http://127.0.0.1:{free.getsockname()[1]}", "a", "b", REGION)
        with gateway(proxy.handle, {KEY: SECRET}, proxy.close) as url:
            made = client(url)
            with pytest.raises(ClientError) as caught:
                made.list_buckets()
            assert status(caught) == ("ServiceUnavailable", 503)
            made.close()
