"""The bundled S3 as boto3 meets it."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.s3.server import KEY, REGION, SECRET, serving

MIB = 1024 * 1024


def client(url: str, secret: str = SECRET, **config: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEY,
        aws_secret_access_key=secret,
        region_name=REGION,
        config=Config(retries={"total_max_attempts": 1}, **({"signature_version": "s3v4"} | config)),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s3")


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    with serving(root) as address:
        yield address


@pytest.fixture
def s3(url: str) -> Iterator[Any]:
    made = client(url)
    yield made
    made.close()


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = f"b-{hashlib.md5(request.node.nodeid.encode()).hexdigest()}"
    s3.create_bucket(Bucket=name)
    return name


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def keys(page: dict[str, Any]) -> list[str]:
    return [each["Key"] for each in page.get("Contents", [])]


def test_buckets_are_made_listed_and_removed(s3: Any) -> None:
    s3.create_bucket(Bucket="my-bucket")
    with pytest.raises(ClientError) as caught:
        s3.create_bucket(Bucket="my-bucket")
    assert code(caught) == ("BucketAlreadyOwnedByYou", 409)
    assert "my-bucket" in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket="my-bucket")["BucketRegion"] == REGION
    assert s3.get_bucket_location(Bucket="my-bucket")["LocationConstraint"] is None
    s3.put_object(Bucket="my-bucket", Key="a/b", Body=b"")
    with pytest.raises(ClientError) as caught:
        s3.delete_bucket(Bucket="my-bucket")
    assert code(caught) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket="my-bucket", Key="a/b")
    s3.delete_bucket(Bucket="my-bucket")
    with pytest.raises(ClientError) as caught:
        s3.head_bucket(Bucket="my-bucket")
    assert code(caught) == ("404", 404)


@pytest.mark.parametrize("region", ["eu-west-1", "EU"])
def test_a_bucket_for_another_region_is_refused(region: str, s3: Any) -> None:
    with pytest.raises(ClientError) as caught:
        s3.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": region})
    assert code(caught) == ("IllegalLocationConstraintException", 400)
    assert "far-away" not in [each["Name"] for each in s3.list_buckets()["Buckets"]]


def test_a_bucket_for_the_region_that_is_here_is_made(s3: Any) -> None:
    s3.create_bucket(Bucket="close-by", CreateBucketConfiguration={"LocationConstraint": REGION})
    assert s3.head_bucket(Bucket="close-by")["BucketRegion"] == REGION
    s3.delete_bucket(Bucket="close-by")


@pytest.mark.parametrize("name", ["_private", "Upper", "dot..", "%2Eclary", ".clary"])
def test_a_bucket_name_reaches_nothing_but_a_bucket(url: str, s3: Any, root: Path, name: str) -> None:
    before = sorted(root.iterdir())
    request = urllib.request.Request(s3.generate_presigned_url("list_buckets").replace("/?", f"/{name}/lock?"))
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request)
    assert sorted(root.iterdir()) == before


def test_an_object_keeps_its_bytes_type_and_metadata_over_a_restart(tmp_path: Path) -> None:
    headers = {"ContentType": "text/x-foo", "CacheControl": "no-cache", "ContentEncoding": "gzip"}
    with serving(tmp_path) as url:
        s3 = client(url)
        s3.create_bucket(Bucket="kept")
        etag = s3.put_object(
            Bucket="kept", Key="a", Body=io.BytesIO(b"hello"), Metadata={"k": "v"}, Tagging="x=y%20z", **headers
        )["ETag"]
        s3.close()
    assert (tmp_path / "kept" / "a").read_bytes() == b"hello"
    with serving(tmp_path) as url:
        s3 = client(url)
        found = s3.get_object(Bucket="kept", Key="a")
        assert (found["Body"].read(), found["ETag"], found["Metadata"]) == (b"hello", etag, {"k": "v"})
        assert {name: found[name] for name in headers} == headers
        assert etag == f'"{hashlib.md5(b"hello").hexdigest()}"'
        assert (found["ChecksumCRC32"], found["TagCount"]) == ("NhCmhg==", 1)
        assert s3.get_object_tagging(Bucket="kept", Key="a")["TagSet"] == [{"Key": "x", "Value": "y z"}]
        s3.close()


def test_a_file_that_was_put_there_by_hand_is_an_object(s3: Any, bucket: str, root: Path) -> None:
    folder = root / bucket / "models"
    folder.mkdir()
    (folder / "data.json").write_bytes(b"{}")
    found = s3.get_object(Bucket=bucket, Key="models/data.json")
    assert (found["Body"].read(), found["ContentType"]) == (b"{}", "application/json")
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert (listed["Key"], listed["ETag"]) == ("models/data.json", found["ETag"])
    (folder / "data.json").write_bytes(b"{ }")
    assert s3.head_object(Bucket=bucket, Key="models/data.json")["ETag"] != found["ETag"]


@pytest.mark.parametrize(
    ("wanted", "body", "content_range"),
    [
        ("bytes=0-4", b"hello", "bytes 0-4/11"),
        ("bytes=6-", b"world", "bytes 6-10/11"),
        ("bytes=-5", b"world", "bytes 6-10/11"),
        ("bytes=-50", b"hello world", "bytes 0-10/11"),
        ("bytes=6-500", b"world", "bytes 6-10/11"),
    ],
)
def test_a_range_is_answered_with_206_and_no_checksum_of_the_whole(
    s3: Any, bucket: str, wanted: str, body: bytes, content_range: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello world")
    found = s3.get_object(Bucket=bucket, Key="k", Range=wanted)
    assert (found["Body"].read(), found["ContentRange"]) == (body, content_range)
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert "ChecksumCRC32" not in found


@pytest.mark.parametrize("ignored", ["bytes=0-1,4-5", "lines=1-2", "bytes=5-2", "bytes=-"])
def test_a_range_that_means_nothing_is_ignored(s3: Any, bucket: str, ignored: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    assert s3.get_object(Bucket=bucket, Key="k", Range=ignored)["Body"].read() == b"hello"


@pytest.mark.parametrize("outside", ["bytes=5-", "bytes=50-60", "bytes=-0"])
def test_a_range_outside_of_the_object_is_refused(s3: Any, bucket: str, outside: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", Range=outside)
    assert code(caught) == ("InvalidRange", 416)


def test_what_does_not_exist_is_said_to_be_missing(s3: Any, bucket: str) -> None:
    for call, expected in (
        (lambda: s3.get_object(Bucket=bucket, Key="nope"), ("NoSuchKey", 404)),
        (lambda: s3.head_object(Bucket=bucket, Key="nope"), ("404", 404)),
        (lambda: s3.get_object(Bucket="no-such-bucket", Key="k"), ("NoSuchBucket", 404)),
        (lambda: s3.put_object(Bucket="no-such-bucket", Key="k", Body=b"x"), ("NoSuchBucket", 404)),
        (lambda: s3.list_objects_v2(Bucket="no-such-bucket"), ("NoSuchBucket", 404)),
        (lambda: s3.get_bucket_policy(Bucket=bucket), ("NoSuchBucketPolicy", 404)),
        (lambda: s3.get_object_acl(Bucket=bucket, Key="k"), ("NotImplemented", 501)),
        (lambda: s3.get_object(Bucket=bucket, Key="k" * 1025), ("KeyTooLongError", 400)),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert code(caught) == expected
    s3.delete_object(Bucket=bucket, Key="nope")


def test_conditions_are_kept(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    later = s3.head_object(Bucket=bucket, Key="k", IfMatch=etag)["LastModified"]
    for call, status in (
        (lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*"), 412),
        (lambda: s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch='"other"'), 412),
        (lambda: s3.put_object(Bucket=bucket, Key="new", Body=b"2", IfMatch=etag), 404),
        (lambda: s3.get_object(Bucket=bucket, Key="k", IfMatch='"other"'), 412),
        (lambda: s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag), 304),
        (lambda: s3.get_object(Bucket=bucket, Key="k", IfModifiedSince=later), 304),
        (lambda: s3.get_object(Bucket=bucket, Key="k", IfUnmodifiedSince=later.replace(year=2020)), 412),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert code(caught)[1] == status
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)


def test_of_many_who_create_the_same_object_one_succeeds(s3: Any, bucket: str) -> None:
    def create(number: int) -> bool:
        try:
            s3.put_object(Bucket=bucket, Key="lock", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, created in enumerate(pool.map(create, range(16))) if created]
    assert len(won) == 1
    assert s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == b"%d" % won[0]


def test_a_body_that_is_not_what_was_announced_changes_nothing(s3: Any, bucket: str, root: Path) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    for wrong, expected in (
        ({"ContentMD5": "A" * 22 + "=="}, "BadDigest"),
        ({"ChecksumCRC32": "AAAAAA=="}, "BadDigest"),
        ({"ChecksumSHA256": "A" * 43 + "="}, "BadDigest"),
    ):
        with pytest.raises(ClientError) as caught:
            s3.put_object(Bucket=bucket, Key="k", Body=b"new", **wrong)
        assert code(caught)[0] == expected
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
    assert not list((root / ".clary" / "tmp").iterdir())


ODD_KEYS = [
    *("sp ace", "a+b", "ü/é", "a%20b", "%e", "q?x", "dir/", "a//b", "/lead", "a/../b", "./x", "..", "back\\slash"),
    *(
        "quote'\"<&>",
        "nl\n",
        ".hidden",
        "x" * 1024,
        "%" * 300,
        "é" * 150 + "/y",
        "#h",
        "semi;=&",
        "ctl\x01",
        "a%o",
        "a%-",
    ),
]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_keys(s3: Any, bucket: str, key: str, root: Path) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert keys(s3.list_objects_v2(Bucket=bucket)) == [key]
    assert keys(s3.list_objects_v2(Bucket=bucket, Prefix=key)) == [key]
    s3.delete_object(Bucket=bucket, Key=key)  # DeleteObjects cannot say control characters: they are not XML
    assert not list((root / bucket).iterdir())
    assert not (root / ".clary" / "meta" / bucket).exists()


def test_an_object_and_a_folder_may_have_one_name(s3: Any, bucket: str) -> None:
    for key in ("a", "a/b", "a/b/c", "a/b", "x/y", "x"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), Metadata={"key": key})
    assert keys(s3.list_objects_v2(Bucket=bucket)) == ["a", "a/b", "a/b/c", "x", "x/y"]
    for key in ("a", "a/b", "a/b/c", "x"):
        found = s3.get_object(Bucket=bucket, Key=key)
        assert (found["Body"].read(), found["Metadata"]) == (key.encode(), {"key": key})
    s3.delete_object(Bucket=bucket, Key="a/b/c")
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"again")
    assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"again"
    assert keys(s3.list_objects_v2(Bucket=bucket, Prefix="a")) == ["a", "a/b"]


NAME = st.text(st.sampled_from("ab./%-é"), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=st.sets(NAME, max_size=12), prefix=st.text(st.sampled_from("ab/"), max_size=3), size=st.integers(1, 5))
def test_pages_hold_every_key_once_and_in_order(s3: Any, names: set[str], prefix: str, size: int) -> None:
    bucket = "pages-of-keys"
    s3.create_bucket(Bucket=bucket)
    try:
        for name in names:
            s3.put_object(Bucket=bucket, Key=name, Body=b"")
        for delimiter in ("", "/", "a"):
            expected = [name for name in sorted(names) if name.startswith(prefix)]
            if delimiter:
                rests = [(name, name[len(prefix) :].find(delimiter)) for name in expected]
                expected = list(dict.fromkeys(n[: len(prefix) + at + 1] if at >= 0 else n for n, at in rests))
            for operation in ("list_objects_v2", "list_objects"):
                pages = s3.get_paginator(operation).paginate(
                    Bucket=bucket, Prefix=prefix, Delimiter=delimiter, PaginationConfig={"PageSize": size}
                )
                found = []
                for page in pages:
                    got = sorted(keys(page) + [each["Prefix"] for each in page.get("CommonPrefixes", [])])
                    assert len(got) <= size
                    found += got
                assert found == expected
    finally:
        for name in names:
            s3.delete_object(Bucket=bucket, Key=name)
        s3.delete_bucket(Bucket=bucket)


def test_a_listing_starts_where_it_is_told_and_shows_no_empty_folder(s3: Any, bucket: str, root: Path) -> None:
    for number in range(5):
        s3.put_object(Bucket=bucket, Key=f"p/{number}", Body=b"")
    (root / bucket / "empty" / "deep").mkdir(parents=True)
    assert keys(s3.list_objects_v2(Bucket=bucket, StartAfter="p/2")) == ["p/3", "p/4"]
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert ([each["Prefix"] for each in page["CommonPrefixes"]], page["KeyCount"]) == (["p/"], 1)
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["IsTruncated"] is False


def test_a_listing_goes_on_after_a_key_that_looks_like_one_in_a_url(s3: Any, bucket: str) -> None:
    for key in ("%aa", "a"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects").paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1})
    assert [key for page in pages for key in keys(page)] == ["%aa", "a"]
    assert s3.list_objects_v2(Bucket=bucket, StartAfter="%aa")["StartAfter"] == "%aa"


def test_many_objects_are_removed_at_once(s3: Any, bucket: str) -> None:
    for key in ("a", "b/c", "d"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "b/c"}, {"Key": "nope"}]})
    assert [each["Key"] for each in answer["Deleted"]] == ["a", "b/c", "nope"]
    assert keys(s3.list_objects_v2(Bucket=bucket)) == ["d"]


def test_a_copy_takes_metadata_along_or_gets_its_own(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b", Body=b"1", ContentType="x/y", Metadata={"k": "v"}, Tagging="t=1")
    source = {"Bucket": bucket, "Key": "a b"}
    etag = s3.copy_object(Bucket=bucket, Key="c", CopySource=source)["CopyObjectResult"]["ETag"]
    found = s3.head_object(Bucket=bucket, Key="c")
    assert (found["ETag"], found["ContentType"], found["Metadata"]) == (etag, "x/y", {"k": "v"})
    s3.copy_object(Bucket=bucket, Key="c", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "1"})
    assert s3.head_object(Bucket=bucket, Key="c")["Metadata"] == {"n": "1"}
    assert s3.get_object_tagging(Bucket=bucket, Key="c")["TagSet"] == [{"Key": "t", "Value": "1"}]
    with pytest.raises(ClientError) as caught:
        s3.copy_object(Bucket=bucket, Key="c", CopySource=source, CopySourceIfMatch='"other"')
    assert code(caught) == ("PreconditionFailed", 412)


def test_tags_are_set_read_and_removed(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    tags = [{"Key": "a", "Value": "<b>"}]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"


def test_a_large_file_goes_up_in_parts_and_comes_down_in_ranges(s3: Any, bucket: str) -> None:
    data = b"".join(bytes([number]) * MIB for number in range(17))
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(data), bucket, "big", ExtraArgs={"ContentType": "m/p"}, Config=config)
    digests = [hashlib.md5(data[at : at + 5 * MIB]).digest() for at in range(0, len(data), 5 * MIB)]
    found = s3.head_object(Bucket=bucket, Key="big")
    expected = f'"{hashlib.md5(b"".join(digests)).hexdigest()}-4"'
    assert (found["ETag"], found["ContentLength"], found["ContentType"]) == (expected, len(data), "m/p")
    received = io.BytesIO()
    s3.download_fileobj(bucket, "big", received, Config=config)
    assert received.getvalue() == data


def test_parts_come_in_any_order_and_again(s3: Any, bucket: str, root: Path) -> None:
    named = {"Bucket": bucket, "Key": "k"}
    upload = s3.create_multipart_upload(**named)["UploadId"]
    assert [each["UploadId"] for each in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    put = {**named, "UploadId": upload}
    etags = {}
    for number, body in ((3, b"c"), (1, b"x" * MIB), (2, b"b" * 5 * MIB), (1, b"a" * 5 * MIB)):
        etags[number] = s3.upload_part(**put, PartNumber=number, Body=body)["ETag"]
    assert [each["Size"] for each in s3.list_parts(**put)["Parts"]] == [5 * MIB, 5 * MIB, 1]
    page = s3.list_parts(**put, MaxParts=2)
    assert (page["IsTruncated"], page["NextPartNumberMarker"]) == (True, 2)
    parts = [{"PartNumber": number, "ETag": etags[number]} for number in (1, 2, 3)]
    for wrong, expected in (
        (parts[::-1], "InvalidPartOrder"),
        ([{"PartNumber": 1, "ETag": '"00"'}], "InvalidPart"),
        ([parts[2] | {"PartNumber": 3}, parts[2] | {"PartNumber": 4}], "InvalidPart"),
    ):
        with pytest.raises(ClientError) as caught:
            s3.complete_multipart_upload(**put, MultipartUpload={"Parts": wrong})
        assert code(caught)[0] == expected
    s3.complete_multipart_upload(**put, MultipartUpload={"Parts": parts})
    assert s3.get_object(**named)["Body"].read() == b"a" * 5 * MIB + b"b" * 5 * MIB + b"c"
    with pytest.raises(ClientError) as caught:
        s3.upload_part(**put, PartNumber=1, Body=b"late")
    assert code(caught) == ("NoSuchUpload", 404)
    assert not list((root / ".clary" / "tmp").iterdir())


def test_parts_may_be_copied_and_an_upload_given_up(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=b"hello world")
    put = {"Bucket": bucket, "Key": "k", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]}
    copied = s3.upload_part_copy(**put, PartNumber=1, CopySource=f"{bucket}/source", CopySourceRange="bytes=6-10")
    etag = copied["CopyPartResult"]["ETag"]
    s3.complete_multipart_upload(**put, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"world"
    given_up = s3.create_multipart_upload(Bucket=bucket, Key="n")["UploadId"]
    s3.abort_multipart_upload(Bucket=bucket, Key="n", UploadId=given_up)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_presigned_url_reads_and_writes_without_keys(url: str, bucket: str, version: str) -> None:
    s3 = client(url, signature_version=version)
    named = {"Bucket": bucket, "Key": "a b"}
    to_put = s3.generate_presigned_url("put_object", named | {"ContentType": "text/plain"})
    put = urllib.request.Request(to_put, data=b"hello", method="PUT")
    put.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(put).close()
    with urllib.request.urlopen(s3.generate_presigned_url("get_object", named)) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"hello", "text/plain")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(s3.generate_presigned_url("get_object", named).replace("a%20b", "c"))
    assert caught.value.code == 403
    caught.value.close()
    s3.close()


def test_a_body_in_chunks_is_stored_without_their_framing(url: str, s3: Any, bucket: str) -> None:
    """As SDKs send streams: the checksum comes last, in a trailer."""

    def put(checksum: bytes) -> int:
        body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:" + checksum + b"\r\n\r\n"
        headers = {
            "Content-Encoding": "aws-chunked",
            "X-Amz-Decoded-Content-Length": "11",
            "X-Amz-Trailer": "x-amz-checksum-crc32",
        }
        request = AWSRequest("PUT", f"{url}/{bucket}/k", data=body, headers=headers)
        with mock.patch.object(S3SigV4Auth, "payload", lambda *_: "STREAMING-UNSIGNED-PAYLOAD-TRAILER"):
            S3SigV4Auth(Credentials(KEY, SECRET), "s3", REGION).add_auth(request)
        sent = urllib.request.Request(request.url, data=body, headers=dict(request.headers.items()), method="PUT")
        sent.add_header("Content-Type", "text/plain")
        with urllib.request.urlopen(sent) as answer:
            return int(answer.status)

    assert put(b"DUoRhQ==") == 200
    with pytest.raises(urllib.error.HTTPError) as caught:
        put(b"AAAAAA==")
    assert b"BadDigest" in caught.value.read()
    caught.value.close()
    found = s3.get_object(Bucket=bucket, Key="k")
    assert (found["Body"].read(), found["ChecksumCRC32"]) == (b"hello world", "DUoRhQ==")
    assert "ContentEncoding" not in found


def test_who_is_not_known_is_refused_in_s3s_words(url: str, bucket: str) -> None:
    for config, secret, expected in (
        ({"signature_version": UNSIGNED}, SECRET, ("AccessDenied", 403)),
        ({}, "wrong", ("SignatureDoesNotMatch", 403)),
    ):
        stranger = client(url, secret, **config)
        with pytest.raises(ClientError) as caught:
            stranger.list_objects_v2(Bucket=bucket)
        assert code(caught) == expected
        stranger.close()


def test_without_authentication_anyone_may(tmp_path: Path) -> None:
    with serving(tmp_path, signed=False) as url:
        anyone = client(url, "whatever")
        anyone.create_bucket(Bucket="open")
        anyone.put_object(Bucket="open", Key="k", Body=io.BytesIO(b"1"))
        assert anyone.get_object(Bucket="open", Key="k")["Body"].read() == b"1"
        anyone.close()
