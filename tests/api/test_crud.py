"""What all kinds share: unknown and taken names, lists, page tokens."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from .conftest import ARN, Api, variant

KINDS = [
    ("Model", "model", "model"),
    ("EndpointConfig", "endpoint-config", "endpoint configuration"),
    ("Endpoint", "endpoint", "endpoint"),
]


@pytest.fixture
async def ready(api: Api) -> Api:
    """A model `m`, a configuration `c` and an endpoint `e`."""
    await api.model()
    await api.config()
    await api.endpoint()
    return api


async def create(api: Api, kind: str, name: str) -> dict[str, Any]:
    return await {"Model": api.model, "EndpointConfig": api.config, "Endpoint": api.endpoint}[kind](name)


@pytest.mark.parametrize(("kind", "arn_type", "title"), KINDS)
async def test_create_gives_the_arn(ready: Api, kind: str, arn_type: str, title: str) -> None:
    assert await create(ready, kind, "New-1") == {f"{kind}Arn": f"{ARN}:{arn_type}/New-1"}


@pytest.mark.parametrize(("kind", "arn_type", "title"), KINDS)
async def test_an_identical_create_is_refused(ready: Api, kind: str, arn_type: str, title: str) -> None:
    await create(ready, kind, "twice")
    members: dict[str, dict[str, Any]] = {
        "Model": {"PrimaryContainer": {"Image": "image"}},
        "EndpointConfig": {"ProductionVariants": [variant()]},
        "Endpoint": {"EndpointConfigName": "c"},
    }
    message = await ready.refusal(f"Create{kind}", **{f"{kind}Name": "twice"}, **members[kind])
    assert message == f'Cannot create already existing {title} "{ARN}:{arn_type}/twice".'


@pytest.mark.parametrize("operation", ["Describe", "Delete"])
@pytest.mark.parametrize(("kind", "arn_type", "title"), KINDS)
async def test_an_unknown_name_could_not_be_found(
    api: Api, operation: str, kind: str, arn_type: str, title: str
) -> None:
    message = await api.refusal(f"{operation}{kind}", **{f"{kind}Name": "nope"})
    assert message == f'Could not find {title} "{ARN}:{arn_type}/nope".'


@pytest.mark.parametrize(("kind", "arn_type", "title"), KINDS)
async def test_an_empty_list_is_there_and_has_no_token(api: Api, kind: str, arn_type: str, title: str) -> None:
    assert await api(f"List{kind}s") == {f"{kind}s": []}


@pytest.mark.parametrize("kind", ["Model", "EndpointConfig"])
async def test_what_is_deleted_is_gone_even_while_it_is_used(ready: Api, kind: str) -> None:
    name = {"Model": "m", "EndpointConfig": "c"}[kind]
    assert await ready(f"Delete{kind}", **{f"{kind}Name": name}) == {}
    assert (await ready.refusal(f"Describe{kind}", **{f"{kind}Name": name})).startswith("Could not find ")
    assert (await ready("DescribeEndpoint", EndpointName="e"))["EndpointStatus"] == "Creating"


async def test_describe_never_gives_tags(api: Api) -> None:
    await api.model(Tags=[{"Key": "k", "Value": "v"}])
    assert "Tags" not in await api("DescribeModel", ModelName="m")


# Lists


async def models(api: Api, count: int) -> None:
    for n in range(count):
        api.clock.now += 1
        await api.model(f"m{n:03}")


def names(answer: dict[str, Any]) -> list[str]:
    return [summary["ModelName"] for summary in answer["Models"]]


async def pages(api: Api, **members: Any) -> list[dict[str, Any]]:
    found = [await api("ListModels", **members)]
    while "NextToken" in found[-1]:
        found.append(await api("ListModels", **members, NextToken=found[-1]["NextToken"]))
    return found


async def test_lists_give_the_newest_ten_first(api: Api) -> None:
    await models(api, 12)
    first, second = await pages(api)
    assert names(first) == [f"m{n:03}" for n in range(11, 1, -1)]
    assert names(second) == ["m001", "m000"]


async def test_a_page_that_ends_with_the_last_has_no_token(api: Api) -> None:
    await models(api, 4)
    assert [len(names(page)) for page in await pages(api, MaxResults=2)] == [2, 2]


async def test_pages_survive_what_comes_and_goes_between_them(api: Api) -> None:
    await models(api, 6)
    first = await api("ListModels", MaxResults=2)
    await api("DeleteModel", ModelName="m004")
    await models_later(api, "newest")
    rest = await api("ListModels", MaxResults=10, NextToken=first["NextToken"])
    assert names(first) == ["m005", "m004"]
    assert names(rest) == ["m003", "m002", "m001", "m000"]


async def models_later(api: Api, name: str) -> None:
    api.clock.now += 1
    await api.model(name)


async def test_equal_times_are_neither_lost_nor_repeated(api: Api) -> None:
    for n in range(7):
        await api.model(f"m{n}")
    found = [name for page in await pages(api, MaxResults=2, SortOrder="Ascending") for name in names(page)]
    assert found == [f"m{n}" for n in range(7)]


async def test_names_sort_both_ways_and_filter_as_a_substring(api: Api) -> None:
    for name in ("b-x", "a-x", "c-y", "X"):
        await api.model(name)
    assert names(await api("ListModels", SortBy="Name", SortOrder="Ascending")) == ["X", "a-x", "b-x", "c-y"]
    assert names(await api("ListModels", SortBy="Name", NameContains="x")) == ["b-x", "a-x"]
    assert names(await api("ListModels", NameContains="%")) == []


async def test_after_includes_and_before_excludes_the_moment(api: Api) -> None:
    await models(api, 3)
    moment = (await api("DescribeModel", ModelName="m001"))["CreationTime"]
    assert names(await api("ListModels", CreationTimeAfter=moment)) == ["m002", "m001"]
    assert names(await api("ListModels", CreationTimeBefore=moment)) == ["m000"]


async def test_the_time_that_an_answer_shows_is_the_one_that_filters_mean(api: Api) -> None:
    api.clock.now = 1_700_000_000.123_987
    await api.model()
    shown = round((await api("DescribeModel", ModelName="m"))["CreationTime"], 3)
    assert names(await api("ListModels", CreationTimeAfter=shown)) == ["m"]
    assert names(await api("ListModels", CreationTimeBefore=shown)) == []


async def test_endpoints_filter_and_sort_by_status_and_modification(ready: Api) -> None:
    await ready.endpoint("f")
    ready.clock.now += 5
    await ready("DeleteEndpoint", EndpointName="f")

    async def found(**members: Any) -> list[str]:
        return [summary["EndpointName"] for summary in (await ready("ListEndpoints", **members))["Endpoints"]]

    assert await found(StatusEquals="Deleting") == ["f"]
    assert await found(StatusEquals="InService") == []
    assert await found(SortBy="Status", SortOrder="Ascending") == ["e", "f"]
    assert await found(LastModifiedTimeAfter=ready.clock.now) == ["f"]
    assert await found(LastModifiedTimeBefore=ready.clock.now) == ["e"]
    summary = (await ready("ListEndpoints", StatusEquals="Deleting"))["Endpoints"][0]
    assert summary == {
        "EndpointName": "f",
        "EndpointArn": f"{ARN}:endpoint/f",
        "CreationTime": 1_700_000_000.0,
        "LastModifiedTime": 1_700_000_005.0,
        "EndpointStatus": "Deleting",
    }


# Page tokens


@pytest.mark.parametrize(
    "other",
    [{"NameContains": "m"}, {"SortBy": "Name"}, {"SortOrder": "Ascending"}, {"CreationTimeAfter": 0.0}],
    ids=str,
)
async def test_a_token_is_refused_with_other_filters_or_another_order(api: Api, other: dict[str, Any]) -> None:
    await models(api, 3)
    token = (await api("ListModels", MaxResults=1))["NextToken"]
    assert "Invalid pagination token" in await api.refusal("ListModels", NextToken=token, **other)


async def test_a_token_is_refused_by_another_operation(ready: Api) -> None:
    await ready.model("m2")
    token = (await ready("ListModels", MaxResults=1))["NextToken"]
    assert "Invalid pagination token" in await ready.refusal("ListEndpointConfigs", NextToken=token)


async def test_saying_the_default_is_the_same_as_saying_nothing_and_the_page_size_may_change(api: Api) -> None:
    await models(api, 3)
    token = (await api("ListModels", MaxResults=1))["NextToken"]
    defaults = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 5}
    assert names(await api("ListModels", NextToken=token, **defaults)) == ["m001", "m000"]


async def test_every_mangled_token_is_refused(api: Api) -> None:
    await models(api, 3)
    token = (await api("ListModels", MaxResults=1))["NextToken"]
    changed = [token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :] for n in range(len(token))]
    nested = base64.urlsafe_b64encode(b"[" * 6000).decode()
    for mangled in (*changed, token[:-1], token + "=", token * 2, token.lower(), "", "x", "é", "====", nested):
        assert "Invalid pagination token" in await api.refusal("ListModels", NextToken=mangled)
