"""Tags, by ARN and with Create."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import ARN, Api

MODEL_ARN = f"{ARN}:model/m"


def tags(*pairs: str) -> list[dict[str, str]]:
    """`a=1` is the tag of key a and value 1."""
    return [dict(zip(("Key", "Value"), pair.split("=", 1), strict=True)) for pair in pairs]


async def listed(api: Api, arn: str = MODEL_ARN) -> list[dict[str, str]]:
    found: list[dict[str, str]] = (await api("ListTags", ResourceArn=arn))["Tags"]
    return found


async def test_tags_that_came_with_create_are_listed_in_their_order(api: Api) -> None:
    await api.model(Tags=tags("b=1", "a="))
    assert await listed(api) == tags("b=1", "a=")


async def test_a_resource_without_tags_has_an_empty_list(api: Api) -> None:
    await api.model()
    assert await api("ListTags", ResourceArn=MODEL_ARN) == {"Tags": []}


async def test_add_overwrites_by_key_and_gives_all(api: Api) -> None:
    await api.model(Tags=tags("a=1", "b=2"))
    assert await api("AddTags", ResourceArn=MODEL_ARN, Tags=tags("a=3", "c=4")) == {"Tags": tags("a=3", "b=2", "c=4")}


async def test_delete_ignores_keys_that_are_not_there(api: Api) -> None:
    await api.model(Tags=tags("a=1", "b=2"))
    assert await api("DeleteTags", ResourceArn=MODEL_ARN, TagKeys=["a", "z"]) == {}
    assert await listed(api) == tags("b=2")


async def test_fifty_tags_are_allowed_and_fifty_one_are_not(api: Api) -> None:
    await api.model(Tags=tags(*(f"k{n}=v" for n in range(49))))
    await api("AddTags", ResourceArn=MODEL_ARN, Tags=tags("k49=v"))
    assert "50 tags" in await api.refusal("AddTags", ResourceArn=MODEL_ARN, Tags=tags("k50=v"))
    await api("AddTags", ResourceArn=MODEL_ARN, Tags=tags("k0=w"))
    found = await listed(api)
    assert len(found) == 50 and found[0] == {"Key": "k0", "Value": "w"}


@pytest.mark.parametrize(
    ("operation", "members"),
    [("ListTags", {}), ("AddTags", {"Tags": tags("a=1")}), ("DeleteTags", {"TagKeys": ["a"]})],
)
@pytest.mark.parametrize("arn", [f"{ARN}:model/other", f"{ARN}:endpoint/m", "arn:aws:s3:::bucket"])
async def test_an_unknown_arn_does_not_exist(api: Api, operation: str, members: dict[str, Any], arn: str) -> None:
    await api.model()
    assert await api.refusal(operation, ResourceArn=arn, **members) == "Resource does not exist."


async def test_arns_are_taken_in_any_case(api: Api) -> None:
    await api.model("Demo")
    await api("AddTags", ResourceArn=f"{ARN}:model/demo", Tags=tags("a=1"))
    assert await listed(api, f"{ARN}:model/DEMO") == tags("a=1")


@pytest.mark.parametrize(("given", "message"), [(("a=1", "a=2"), "more than once"), (("aws:x=1",), "reserved")])
async def test_repeated_and_reserved_keys_are_refused(api: Api, given: tuple[str, ...], message: str) -> None:
    refusal = await api.refusal("CreateModel", ModelName="m", PrimaryContainer={"Image": "image"}, Tags=tags(*given))
    assert message in refusal
    await api.model()
    assert message in await api.refusal("AddTags", ResourceArn=MODEL_ARN, Tags=tags(*given))
    assert await listed(api) == []


async def test_tags_go_with_their_resource(api: Api) -> None:
    await api.model(Tags=tags("a=1"))
    await api("DeleteModel", ModelName="m")
    assert await api.refusal("ListTags", ResourceArn=MODEL_ARN) == "Resource does not exist."
    await api.model()
    assert await listed(api) == []


async def test_a_token_for_tags_is_never_given_and_so_never_valid(api: Api) -> None:
    await api.model(Tags=tags(*(f"k{n}=v" for n in range(50))))
    assert "NextToken" not in await api("ListTags", ResourceArn=MODEL_ARN, MaxResults=50)
    assert "token" in await api.refusal("ListTags", ResourceArn=MODEL_ARN, NextToken="x")
