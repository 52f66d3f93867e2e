"""The edge, served by uvicorn on a real socket, with boto3 and aiohttp as its clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import boto3
import pytest
from botocore.exceptions import ClientError

from clary.api.app import App
from clary.core.resources import ENDPOINT, Partition
from clary.wire.dispatch import Dispatcher

from .conftest import ARN, Api, served, variant


@dataclass
class Feed:
    """A feed of route tables whose end can be waited for."""

    lines: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            while (line := await self.lines.get()) is not None:
                yield line
        finally:
            self.closed.set()


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
async def url(api: Api, feed: Feed) -> AsyncIterator[str]:
    """Serve the operations of `api`; give the address."""
    app = App(Dispatcher(api.handlers), Partition("123456789012", "us-east-1"), feed)
    async with served(app) as address:
        yield address


@pytest.fixture
async def session(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=300)) as session:
        yield session


def boto(service: str, url: str) -> Any:
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="secret",
    )


async def test_boto3_makes_finds_and_deletes_an_endpoint(api: Api, url: str) -> None:
    def use() -> None:
        client = boto("sagemaker", url)
        client.create_model(
            ModelName="m", PrimaryContainer={"Image": "image"}, Tags=[{"Key": "team", "Value": "search"}]
        )
        client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant()])
        assert client.create_endpoint(EndpointName="e", EndpointConfigName="c")["EndpointArn"] == f"{ARN}:endpoint/e"
        described = client.describe_endpoint(EndpointName="e")
        assert described["EndpointStatus"] == "Creating"
        assert described["CreationTime"].timestamp() == 1_700_000_000.0
        assert "_Deployment" not in described
        model = client.describe_model(ModelName="m")
        assert model["PrimaryContainer"] == {"Image": "image", "Mode": "SingleModel"}
        assert not {"Tags", "LastModifiedTime"} & model.keys()
        assert client.list_tags(ResourceArn=model["ModelArn"])["Tags"] == [{"Key": "team", "Value": "search"}]
        client.delete_endpoint(EndpointName="e")
        assert client.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Deleting"

    await asyncio.to_thread(use)
    await api.store.remove(ENDPOINT, "e")
    client = boto("sagemaker", url)
    await asyncio.to_thread(client.get_waiter("endpoint_deleted").wait, EndpointName="e")


async def test_boto3s_paginators_find_all(api: Api, url: str) -> None:
    for n in range(25):
        await api.model(f"m{n}")

    def use() -> list[str]:
        pages = boto("sagemaker", url).get_paginator("list_models").paginate(SortBy="Name", PaginationConfig={})
        return [summary["ModelName"] for page in pages for summary in page["Models"]]

    assert await asyncio.to_thread(use) == sorted((f"m{n}" for n in range(25)), reverse=True)


async def test_refusals_reach_boto3_with_code_text_and_status(url: str) -> None:
    with pytest.raises(ClientError) as raised:
        await asyncio.to_thread(lambda: boto("sagemaker", url).describe_model(ModelName="nope"))
    assert raised.value.response["Error"] == {
        "Code": "ValidationException",
        "Message": f'Could not find model "{ARN}:model/nope".',
    }
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


async def test_what_the_gateway_says_of_the_caller_is_believed(session: aiohttp.ClientSession) -> None:
    headers = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "x-clary-request-id": "the-request",
        "x-clary-access-key-id": "AKIATHISONE",
        "x-clary-service": "sts",
    }
    body = "Action=GetCallerIdentity&Version=2011-06-15"
    async with session.post("/any/path", data=body, headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["x-amzn-requestid"] == "the-request"
        text = await answer.text()
    assert "<UserId>AKIATHISONE</UserId>" in text
    assert "<Arn>arn:aws:iam::123456789012:user/clary</Arn>" in text


async def test_health_is_ok_and_other_paths_are_not_there(session: aiohttp.ClientSession) -> None:
    async with session.get("/_clary/health") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})
    async with session.get("/") as answer:
        assert answer.status == 404


async def test_route_tables_arrive_as_they_are_made(session: aiohttp.ClientSession, feed: Feed) -> None:
    async with session.get("/_clary/routes") as answer:
        for line in (b'{"revision":1}\n', b'{"revision":2}\n'):
            feed.lines.put_nowait(line)
            assert await answer.content.readline() == line
        feed.lines.put_nowait(None)
        assert await answer.content.read() == b""
    assert feed.closed.is_set()


async def test_a_feed_stops_when_its_gateway_goes_away(session: aiohttp.ClientSession, feed: Feed) -> None:
    answer = await session.get("/_clary/routes")
    feed.lines.put_nowait(b"{}\n")
    assert await answer.content.readline() == b"{}\n"
    answer.close()
    await asyncio.wait_for(feed.closed.wait(), 60)


async def test_a_request_whose_client_left_early_is_not_carried_out(api: Api, feed: Feed) -> None:
    app = App(Dispatcher(api.handlers), Partition("123456789012", "us-east-1"), feed)
    body = b'{"ModelName":"m","PrimaryContainer":{"Image":"image"}}'
    received = iter([{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"x-amz-target", b"SageMaker.CreateModel")]
    await app({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)
    assert sent == []
    assert await api("ListModels") == {"Models": []}
