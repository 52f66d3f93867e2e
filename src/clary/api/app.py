"""The control plane's ASGI edge, on a Unix socket that only the gateway talks to, and the table of operations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from clary.api.endpoint_configs import EndpointConfigs
from clary.api.endpoints import Endpoints, Notify
from clary.api.identity import get_caller_identity
from clary.api.inference_components import InferenceComponents
from clary.api.models import Models
from clary.api.package_groups import ModelPackageGroups
from clary.api.packages import ModelPackages
from clary.api.tags import Tags
from clary.api.transform_jobs import TransformJobs
from clary.api.world import World
from clary.core.ports import ResourceStore, SpecStore, TagStore
from clary.core.resources import Partition
from clary.errors import AwsError, SerializationException
from clary.wire import codec, failures
from clary.wire.dispatch import Caller, Dispatcher, Handler
from clary.wire.failures import WireResponse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

Routes = Callable[[], AsyncGenerator[bytes, None]]
"""Starts a feed of route tables: a line of JSON now and one after each change, until it is closed."""

Manage = Callable[[Caller, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Carries out what `clary keys` and `clary roles` ask for. Raises AwsError."""


Feed = Callable[[str], AsyncGenerator[bytes, None]]
"""Starts a feed for a gateway, by the name that it gives itself, as `Routes`."""

Take = Callable[[Any], Awaitable[Any]]
"""Takes what a gateway hands over as JSON, and answers. Raises SerializationException for what it does not know."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What answers gateways beside AWS's operations. `feeds` and `takes` are by path."""

    manage: Manage | None = None
    """Answers `POST /_clary/iam`, JSON in and out."""
    exposition: Callable[[], bytes] | None = None
    """Writes all metrics in Prometheus' text format."""
    feeds: Mapping[str, Feed] = field(default_factory=dict)
    takes: Mapping[str, Take] = field(default_factory=dict)


class Store(ResourceStore, SpecStore, TagStore, Protocol):
    """All that the operations keep."""


def operations(
    store: Store,
    partition: Partition,
    notify: Notify,
    world: World | None = None,
    notify_jobs: Notify = lambda name: None,
) -> dict[tuple[str, str], Handler]:
    """Give every operation that Clary has, by service and name.

    `notify` is told of endpoints that changed, `notify_jobs` of transform jobs.
    `world` None: CreateModel takes artifacts and images on trust, and an endpoint finds out.
    """
    groups = ModelPackageGroups(store, partition)
    packages = ModelPackages(store, partition, groups)
    models = Models(store, partition, packages, world)
    configs = EndpointConfigs(store, partition, models)
    endpoints = Endpoints(store, partition, models, configs, notify)
    components = InferenceComponents(store, partition, models, endpoints, notify, world)
    jobs = TransformJobs(store, partition, models, notify_jobs)
    tags = Tags(store)
    return {
        ("sagemaker", "CreateModel"): models.create,
        ("sagemaker", "DescribeModel"): models.describe,
        ("sagemaker", "ListModels"): models.list,
        ("sagemaker", "DeleteModel"): models.delete,
        ("sagemaker", "CreateEndpointConfig"): configs.create,
        ("sagemaker", "DescribeEndpointConfig"): configs.describe,
        ("sagemaker", "ListEndpointConfigs"): configs.list,
        ("sagemaker", "DeleteEndpointConfig"): configs.delete,
        ("sagemaker", "CreateEndpoint"): endpoints.create,
        ("sagemaker", "DescribeEndpoint"): endpoints.describe,
        ("sagemaker", "ListEndpoints"): endpoints.list,
        ("sagemaker", "DeleteEndpoint"): endpoints.delete,
        ("sagemaker", "CreateInferenceComponent"): components.create,
        ("sagemaker", "DescribeInferenceComponent"): components.describe,
        ("sagemaker", "ListInferenceComponents"): components.list,
        ("sagemaker", "UpdateInferenceComponent"): components.update,
        ("sagemaker", "UpdateInferenceComponentRuntimeConfig"): components.update_runtime_config,
        ("sagemaker", "DeleteInferenceComponent"): components.delete,
        ("sagemaker", "CreateModelPackageGroup"): groups.create,
        ("sagemaker", "DescribeModelPackageGroup"): groups.describe,
        ("sagemaker", "ListModelPackageGroups"): groups.list,
        ("sagemaker", "DeleteModelPackageGroup"): groups.delete,
        ("sagemaker", "PutModelPackageGroupPolicy"): groups.put_policy,
        ("sagemaker", "GetModelPackageGroupPolicy"): groups.get_policy,
        ("sagemaker", "DeleteModelPackageGroupPolicy"): groups.delete_policy,
        ("sagemaker", "CreateModelPackage"): packages.create,
        ("sagemaker", "DescribeModelPackage"): packages.describe,
        ("sagemaker", "BatchDescribeModelPackage"): packages.batch_describe,
        ("sagemaker", "ListModelPackages"): packages.list,
        ("sagemaker", "UpdateModelPackage"): packages.update,
        ("sagemaker", "DeleteModelPackage"): packages.delete,
        ("sagemaker", "CreateTransformJob"): jobs.create,
        ("sagemaker", "DescribeTransformJob"): jobs.describe,
        ("sagemaker", "ListTransformJobs"): jobs.list,
        ("sagemaker", "StopTransformJob"): jobs.stop,
        ("sagemaker", "AddTags"): tags.add,
        ("sagemaker", "ListTags"): tags.list,
        ("sagemaker", "DeleteTags"): tags.delete,
        ("sts", "GetCallerIdentity"): get_caller_identity,
    }


class App:
    """Answers AWS calls, feeds routes to gateways and says that it is alive.

    The gateway has checked the signature; it passes on who asks in `x-clary-request-id`, `x-clary-access-key-id` and
    `x-clary-service` (the signing service, empty where unsigned), the path in `x-clary-path`, a session's token in
    `x-clary-session-token`, and whence the request comes in `x-clary-source-ip`.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        partition: Partition,
        routes: Routes,
        doors: Doors | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._partition = partition
        self._routes = routes
        self._doors = doors or Doors()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"cannot serve {scope['type']}: run the server with lifespan and WebSockets off")
        doors = self._doors
        match scope["method"], scope["path"]:
            case "POST", path if path in doors.takes:
                await _hand_over(doors.takes[path], receive, send)
            case "GET", path if path in doors.feeds:
                await _feed(doors.feeds[path](_headers(scope).get("x-clary-gateway", "")), receive, send)
            case "GET", "/_clary/prometheus" if doors.exposition is not None:
                await _respond(send, 200, {"content-type": "text/plain; version=0.0.4"}, doors.exposition())
            case "POST", _:
                await self._call(scope, receive, send)
            case "GET", "/_clary/routes":
                await _feed(self._routes(), receive, send)
            case "GET", "/_clary/health":
                await _respond(send, 200, {"content-type": "application/json"}, json.dumps({"status": "ok"}).encode())
            case _:
                await _respond(send, 404, {}, b"")

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        body = await _body(receive)
        if body is None:
            return
        caller = Caller(
            account_id=self._partition.account_id,
            region=self._partition.region,
            access_key_id=headers.get("x-clary-access-key-id", ""),
            request_id=headers.get("x-clary-request-id", ""),
            session_token=headers.get("x-clary-session-token", ""),
            source_ip=headers.get("x-clary-source-ip", ""),
            secure=headers.get("x-clary-secure") == "true",
            user_agent=headers.get("user-agent", ""),
        )
        if self._doors.manage is not None and scope["path"] == "/_clary/iam":
            response = await self._answer_manager(self._doors.manage, caller, body)
        else:
            service, path = headers.get("x-clary-service", ""), headers.get("x-clary-path", "/")
            response = await self._dispatcher.handle(service, headers, body, caller, path)
        await _respond(send, response.status, response.headers, response.body)

    async def _answer_manager(self, manage: Manage, caller: Caller, body: bytes) -> WireResponse:
        try:
            request = codec.parse(body)
            if not isinstance(request, dict):
                raise SerializationException("The body must be a JSON object.")
            answer = codec.dump(await manage(caller, request))
        except AwsError as error:
            return failures.error_response(error, failures.JSON_CONTENT_TYPE, caller.request_id)
        return WireResponse(200, failures.headers(failures.JSON_CONTENT_TYPE, caller.request_id), answer)


async def _feed(lines: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
    """Send lines until the gateway goes away or the feed ends."""
    await _start(send, 200, {"content-type": "application/x-ndjson"})
    sending = asyncio.create_task(_send_all(lines, send))
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        sending.cancel()
        # Waits for the feed to be closed, so that nothing is left behind in whoever feeds it.
        ended, _ = await asyncio.gather(sending, leaving, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _hand_over(take: Callable[[Any], Awaitable[Any]], receive: Receive, send: Send) -> None:
    """Hand over what a gateway sends, JSON in and out."""
    body = await _body(receive)
    if body is None:
        return
    try:
        answer = await take(codec.parse(body))
    except SerializationException as error:
        await _respond(send, error.status, {}, error.message.encode())
    else:
        await _respond(send, 200, {"content-type": "application/json"}, codec.dump(answer))


async def _body(receive: Receive) -> bytes | None:
    """Read the request's body; None where the client left before its end."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _send_all(lines: AsyncGenerator[bytes, None], send: Send) -> None:
    try:
        async for line in lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await lines.aclose()


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _respond(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    await _start(send, status, {**headers, "content-length": str(len(body))})
    await send({"type": "http.response.body", "body": body})
