"""Objects against a small stand-in for S3, and against the real one that Clary bundles."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
import pytest
from aiohttp import web

from clary.engines.ports import Ports
from clary.errors import Transient
from clary.objecterrors import AccessRefused, ObjectNotFound, ObjectRefused
from clary.objects import PART, ObjectHead, Objects

DATA = os.urandom(9_000_000)
RCLONE = Path(sys.executable).with_name("rclone")


class StandIn:
    """Answers HEAD and GET for one object; remembers what it was asked."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.signed: list[bool] = []
        self.status = 200
        self.words = "<Error><Code>AuthorizationHeaderMalformed</Code></Error>"
        """Of a refusal with 400 or 403."""
        self.key = "a/model.tar.gz"
        """What a listing has."""
        self.cuts: list[int] = []
        """Bytes after which each of the next answers breaks off."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.signed.append("Authorization" in request.headers)
        if "list-type" in request.query:
            return web.Response(
                text=_listing(self.key, request.query.get("prefix", "")), content_type="application/xml"
            )
        if self.status in (400, 403):
            return web.Response(status=self.status, text=self.words)
        if self.status != 200 or request.path != "/models/a/model.tar.gz":
            return web.Response(status=self.status if self.status != 200 else 404)
        headers = {"ETag": '"abc"', "Last-Modified": "Sun, 22 Nov 2026 00:00:00 GMT", "Content-Type": "text/x-tar"}
        body, status = DATA, 200
        if start := request.http_range.start:
            body, status = DATA[start:], 206
            headers["Content-Range"] = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        if not self.cuts:
            return web.Response(status=status, body=body, headers=headers)
        response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: self.cuts.pop(0)])
        assert request.transport is not None
        request.transport.close()
        return response


def _listing(key: str, prefix: str) -> str:
    entry = f"<Contents><Key>{key}</Key><Size>9</Size><LastModified>2026-11-22T00:00:00Z</LastModified>"
    found = f"{entry}<ETag>abc</ETag></Contents>" if key.startswith(prefix) else ""
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"


@pytest.fixture
async def s3() -> AsyncIterator[tuple[StandIn, str]]:
    stand_in = StandIn()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stand_in.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield stand_in, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def reader(endpoint: str | None = None, key: str = "", roots: tuple[Path, ...] = ()) -> Objects:
    return Objects(endpoint, key, key, "us-east-1", roots)


@pytest.mark.parametrize(
    "url",
    [
        "s3://models/a/model.tar.gz",
        "https://s3.amazonaws.com/models/a/model.tar.gz",
        "https://s3.eu-west-1.amazonaws.com/models/a/model.tar.gz",
        "https://models.s3.amazonaws.com/a/model.tar.gz",
        "https://models.s3.us-gov-west-1.amazonaws.com/a/model.tar.gz",
        "https://models.s3-us-west-2.amazonaws.com/a/model.tar.gz",
        "https://models.s3.cn-north-1.amazonaws.com.cn/a/model.tar.gz",
    ],
)
async def test_every_spelling_of_an_s3_object_is_read(s3: tuple[StandIn, str], tmp_path: Path, url: str) -> None:
    _, endpoint = s3
    head = await reader(endpoint).head(url)
    assert (head.size, head.etag.strip('"')) == (len(DATA), "abc")
    told: list[tuple[int, int]] = []
    await reader(endpoint).download(url, tmp_path / "out", lambda done, total: told.append((done, total)))
    assert (tmp_path / "out").read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert len(told) > 1


async def test_requests_are_signed_when_there_is_a_key(s3: tuple[StandIn, str]) -> None:
    stand_in, endpoint = s3
    await reader(endpoint).head("s3://models/a/model.tar.gz")
    await reader(endpoint, key="k").head("s3://models/a/model.tar.gz")
    assert stand_in.signed == [False, True]


async def test_what_is_not_there_is_told_from_what_may_come_back(s3: tuple[StandIn, str]) -> None:
    stand_in, endpoint = s3
    with pytest.raises(ObjectNotFound, match="s3://models/none"):
        await reader(endpoint).head("s3://models/none")
    stand_in.status = 403
    with pytest.raises(ObjectRefused):
        await reader(endpoint).head("s3://models/a/model.tar.gz")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Transient):
            await reader(f"http://127.0.0.1:{unused.getsockname()[1]}").head("s3://models/a")


async def test_a_prefix_ends_where_a_folder_does(s3: tuple[StandIn, str]) -> None:
    _, endpoint = s3
    objects = reader(endpoint)
    assert await objects.any_below("s3://models/a/")
    assert await objects.any_below("s3://models/a")
    assert await objects.any_below("s3://models/")
    assert not await objects.any_below("s3://models/b/")
    for folder in ("s3://models/a/", "s3://models/a", "https://models.s3.amazonaws.com/a/"):
        assert await objects.below(folder) == [
            ("s3://models/a/model.tar.gz", "model.tar.gz", ObjectHead(9, "abc")),
        ]
    assert [path for _, path, _ in await objects.below("s3://models/")] == ["a/model.tar.gz"]
    assert await objects.below("s3://models/b/") == []
    with pytest.raises(ObjectRefused):
        await objects.any_below("s3://")


@pytest.mark.parametrize(
    "url", ["https://example.com/a", "ftp://x/y", "s3://bucket", "s3://", "http://s3.amazonaws.com/b/k", "model.tar.gz"]
)
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ObjectRefused):
        await reader("http://127.0.0.1:1").head(url)


async def test_a_key_longer_than_keys_can_be_is_refused_and_not_asked_for_again() -> None:
    """It never will be there; S3 answers with a bare 400, which says nothing of why."""
    with pytest.raises(ObjectRefused, match="1024 bytes"):
        await reader("http://127.0.0.1:1").head(f"s3://models/{'k' * 1023}é")


async def test_files_are_read_below_the_roots_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"s")
    (root / "a b").write_bytes(b"data")
    (root / "way out").symlink_to(tmp_path / "secret")
    objects = reader(roots=(root,))
    await objects.download((root / "a b").as_uri(), tmp_path / "out", lambda *_: None)
    assert (tmp_path / "out").read_bytes() == b"data"
    assert (await objects.head((root / "a b").as_uri())).size == 4
    for path in (tmp_path / "secret", root / "way out", tmp_path / "missing"):
        with pytest.raises(ObjectRefused, match="--file-roots"):
            await objects.head(path.as_uri())
    with pytest.raises(ObjectRefused, match="--file-roots"):
        await objects.head(f"file://{root}/../secret")
    with pytest.raises(ObjectNotFound):
        await objects.head((root / "missing").as_uri())
    with pytest.raises(ObjectRefused, match="not a file"):
        await objects.head(root.as_uri())
    with pytest.raises(ObjectRefused):
        await objects.head(f"file://elsewhere{root}/a%20b")


async def test_a_changed_file_has_another_etag(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"1")
    objects = reader(roots=(tmp_path,))
    first = await objects.head(file.as_uri())
    file.write_bytes(b"22")
    assert await objects.head(file.as_uri()) != first


@pytest.fixture
async def rclone(tmp_path: Path) -> AsyncIterator[str]:
    binary = str(RCLONE) if RCLONE.exists() else shutil.which("rclone")
    if binary is None:
        pytest.skip("no rclone on this machine")
    ports = Ports(uuid.uuid4().hex)
    port = ports.take().port
    (tmp_path / "buckets" / "models").mkdir(parents=True)
    process = await asyncio.create_subprocess_exec(
        binary, "serve", "s3", "--addr", f"127.0.0.1:{port}", str(tmp_path / "buckets"),
        stderr=asyncio.subprocess.DEVNULL, env={"HOME": str(tmp_path)},
    )  # fmt: skip
    for _ in range(6000):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            await writer.wait_closed()
            break
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    await process.wait()
    ports.close()


async def test_an_s3_that_asks_for_no_key_is_read_without_one(rclone: str, tmp_path: Path) -> None:
    (tmp_path / "buckets" / "models" / "a b+c.bin").write_bytes(DATA)
    objects = reader(rclone)
    head = await objects.head("s3://models/a b+c.bin")
    assert head.size == len(DATA)
    await objects.download("s3://models/a b+c.bin", tmp_path / "out", lambda *_: None)
    assert (tmp_path / "out").read_bytes() == DATA
    with pytest.raises(ObjectNotFound):
        await objects.head("s3://models/none")
    with pytest.raises(ObjectNotFound):
        await objects.head("s3://no-such-bucket/none")


async def test_what_is_written_can_be_read(rclone: str, tmp_path: Path) -> None:
    objects = reader(rclone)
    await objects.put("s3://models/new/a.jsonl", b"one\n")
    await objects.download("s3://models/new/a.jsonl", tmp_path / "a", lambda done, total: None)
    assert (tmp_path / "a").read_bytes() == b"one\n"


async def test_an_object_that_is_interrupted_is_read_on_from_there(s3: tuple[StandIn, str]) -> None:
    stand_in, url = s3
    stand_in.cuts = [3_000_000, 10, 2_500_000]
    opened = await reader(url).open("s3://models/a/model.tar.gz", 10.0)
    assert (opened.size, opened.content_type) == (len(DATA), "text/x-tar")
    assert b"".join([piece async for piece in opened.pieces]) == DATA
    assert len(stand_in.paths) >= 4


async def test_an_object_that_stays_away_is_given_up(s3: tuple[StandIn, str]) -> None:
    stand_in, url = s3
    stand_in.cuts = [3_000_000]
    opened = await reader(url).open("s3://models/a/model.tar.gz", 0.2)
    stand_in.status = 503
    with pytest.raises(Transient):
        async for _ in opened.pieces:
            continue


async def _cut(data: bytes, size: int, error: Exception | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]
    if error is not None:
        raise error


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, len(DATA)])
async def test_what_comes_in_pieces_becomes_one_object(rclone: str, size: int) -> None:
    objects, url = reader(rclone), "s3://models/new/in pieces"
    await objects.write(url, _cut(DATA[:size], 700_001), "text/x-answer")
    opened = await objects.open(url, 10.0)
    assert opened.size == size
    assert b"".join([piece async for piece in opened.pieces]) == DATA[:size]


@pytest.mark.parametrize("size", [10, len(DATA)])
async def test_pieces_that_break_off_leave_no_object_and_are_heard_of(rclone: str, size: int) -> None:
    objects = reader(rclone)
    with pytest.raises(ConnectionResetError):
        await objects.write("s3://models/half", _cut(DATA[:size], 700_001, ConnectionResetError()))
    with pytest.raises(ObjectNotFound):
        await objects.open("s3://models/half", 10.0)


async def test_a_bucket_that_is_not_there_takes_nothing(rclone: str) -> None:
    with pytest.raises(ObjectNotFound, match="there is no such bucket"):
        await reader(rclone).write("s3://none/a", _cut(b"x", 1))


@pytest.mark.parametrize("key", ["a//b", "a/../b", "a/t\nab"])
async def test_a_listing_with_a_key_that_cannot_be_read_is_no_passing_trouble(
    s3: tuple[StandIn, str], key: str
) -> None:
    stand_in, url = s3
    stand_in.key = key
    with pytest.raises(ObjectRefused, match="s3://models/a/: a key there cannot be read"):
        _ = [each async for each in reader(url).beginning_with("s3://models/a/")]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("no policy of &quot;r&quot; allows s3:PutObject", ': no policy of "r" allows s3:PutObject'),
        ("Access Denied", ""),
    ],
)
async def test_who_may_not_do_what_is_said_where_the_store_says_it(
    s3: tuple[StandIn, str], message: str, words: str
) -> None:
    stand_in, url = s3
    stand_in.status = 403
    stand_in.words = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
    with pytest.raises(AccessRefused) as caught:
        await reader(url).put("s3://models/a", b"x")
    assert caught.value.message == f"s3://models/a: the store refuses access to it{words}"


async def test_a_header_that_cannot_be_read_is_no_passing_trouble() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nLast-Modified: Sun, 22 Nov 2026 00:00:00 GMT\r\nETag: a\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"Content-Type: x/\xe9\r\n\r\nx")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ObjectRefused, match="Content-Type header contained non UTF-8"):
            await reader(f"http://127.0.0.1:{port}").open("s3://models/a/model.tar.gz", 10.0)


async def test_what_the_store_says_no_to_is_no_passing_trouble_but_for_a_cut_request(s3: tuple[StandIn, str]) -> None:
    stand_in, url = s3
    stand_in.status = 400
    stand_in.words = "<Error><Code>KMS.DisabledException</Code>\n<Message>the key is disabled</Message></Error>"
    with pytest.raises(ObjectRefused, match=r"the store refuses it: KMS\.DisabledException: the key is disabled$"):
        await reader(url).put("s3://models/a", b"x")
    stand_in.words = "<Error><Code>RequestTimeout</Code><Message>...</Message></Error>"
    with pytest.raises(Transient):
        await reader(url).put("s3://models/a", b"x")


async def test_an_object_of_any_size_has_parts_enough(rclone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    async def put(*given: object, chunk_size: int, **others: object) -> None:
        sizes.append(chunk_size)

    class Huge(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            return 10**14 if whence == os.SEEK_END else offset

    monkeypatch.setattr(obstore, "put_async", put)
    await reader(rclone).upload("s3://models/a", io.BytesIO(b"x"))
    await reader(rclone).upload("s3://models/a", Huge())
    assert sizes == [PART, 10**10]


async def test_a_bucket_in_another_region_is_no_passing_trouble(s3: tuple[StandIn, str], tmp_path: Path) -> None:
    stand_in, url = s3
    objects = Objects(url, "key", "secret", "us-east-1", ())
    stand_in.status = 301  # without a place to go, as S3 answers
    with pytest.raises(ObjectRefused, match="its bucket is in another region"):
        await objects.head("s3://models/a/model.tar.gz")
    for status in (301, 400):
        stand_in.status = status
        with pytest.raises(ObjectRefused, match="its bucket is in another region"):
            await objects.download("s3://models/a/model.tar.gz", tmp_path / "file", lambda done, total: None)


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://bucket.s3.amazonaws.com/a/k%20k", "s3://bucket/a/k k"),
        ("https://bucket.s3.eu-west-1.amazonaws.com/k", "s3://bucket/k"),
        ("https://s3.eu-west-1.amazonaws.com/b/k", "s3://b/k"),
        ("https://minio.local:9000/base/b/k%20k", "s3://b/k k"),
        ("s3://b/k%20k?#", "s3://b/k%20k?#"),
        ("s3://b/folder/", "s3://b/folder/"),
        ("s3://b", "s3://b/"),
        ("file:///b/k", "file:///b/k"),
    ],
)
def test_the_addresses_of_an_object_have_one_spelling(url: str, same: str) -> None:
    assert reader("https://minio.local:9000/base").canonical(url) == same


HOSTILE = [
    *("s3://mmm//k", "s3://mmm/a//k", "s3://mmm/../k", "s3://mmm/a/../k", "s3://mmm/./k", "s3://mmm/a\0k"),
    *("s3://mmm/a\nk", "s3://mmm/\ud800", "s3://../mmm/k", "s3://./mmm/k", "s3:///k", "s3://a%2eb/k", "S3://mmm/k"),
    *("https://[/k", "https://[::1/k", "https://s3.amazonaws.com/mmm/../k", "https://mmm.s3.amazonaws.com//k"),
    *(
        "https://mmm.s3.amazonaws.com/a%2F..%2Fk",
        "https://mmm.s3.amazonaws.com/%2Fk",
        "https://s3.amazonaws.com//mmm/k",
    ),
    *("https://mmm.s3.amazonaws.com/k?versionId=1", "https://mmm.s3.amazonaws.com/k#k"),
    *("https://s3.amazonaws.com:99999/mmm/k", "https://s3.amazonaws.com:8443/mmm/k", "https://me@s3.amazonaws.com/b/k"),
    *("https://minio.local:9000/mmm//k", "https://minio.local:9000/mmm/k?versionId=1", "https://minio.local/mmm/k"),
]
"""What a store would take for another object than a policy does, or for none."""


@pytest.mark.parametrize("tail", ["", "/"])
@pytest.mark.parametrize("url", HOSTILE)
async def test_what_has_no_one_spelling_is_refused_as_an_object_and_as_a_prefix(url: str, tail: str) -> None:
    objects = reader("https://minio.local:9000")
    for look in (objects.head, objects.any_below, objects.below):
        with pytest.raises(ObjectRefused):
            await look(url + tail)
    with pytest.raises(ObjectRefused):
        await objects.read(url + tail, 9)


async def test_an_object_is_no_folder() -> None:
    with pytest.raises(ObjectRefused, match="expected a bucket and a key"):
        await reader("http://127.0.0.1:1").head("s3://models/a/model.tar.gz/")


async def test_a_small_object_is_read_whole_and_only_in_its_version(s3: tuple[StandIn, str]) -> None:
    objects, url = reader(s3[1]), "s3://models/a/model.tar.gz"
    assert await objects.read(url, len(DATA), "abc") == DATA
    with pytest.raises(ObjectRefused, match=f"it has {len(DATA)} bytes"):
        await objects.read(url, len(DATA) - 1)
    with pytest.raises(ObjectRefused, match="its ETag is"):
        await objects.read(url, len(DATA), "other")
