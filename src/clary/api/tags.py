"""Tags: AddTags, ListTags and DeleteTags for every kind, and the tags that come with a Create."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from clary.core.ports import TagStore
from clary.errors import ValidationException
from clary.wire.dispatch import Caller

MAX_TAGS = 50
"""For one resource (service quota)."""
UNTAGGED = "Tags cannot be given to a version of a model package group: it has the group's."
_VERSION = re.compile(r".*:model-package/[^/]+/\d+", re.IGNORECASE)
_RESERVED = "aws:"


class Tags:
    """The three operations, by ARN."""

    def __init__(self, store: TagStore) -> None:
        self._store = store

    async def add(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Add tags, overwriting the values of keys that are there, and give all that the resource has now."""
        tags = from_list(request["Tags"])
        arn = await self._known(request)
        if _VERSION.fullmatch(arn):
            raise ValidationException(UNTAGGED)
        stored = await self._store.put_tags(arn, tags, MAX_TAGS)
        if stored is None:
            raise ValidationException(f'The resource "{arn}" would have more than {MAX_TAGS} tags.')
        return {"Tags": _to_list(stored)}

    async def list(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Give all tags. A page holds at least 50 and a resource has no more, so there is never a second one."""
        if "NextToken" in request:
            raise ValidationException("Invalid pagination token.")
        return {"Tags": _to_list(await self._store.tags(await self._known(request)))}

    async def delete(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Remove tags by key; keys that the resource does not have are fine."""
        await self._store.remove_tags(await self._known(request), request["TagKeys"])
        return {}

    async def _known(self, request: dict[str, Any]) -> str:
        arn: str = request["ResourceArn"]
        if not await self._store.exists(arn):
            raise ValidationException("Resource does not exist.")
        return arn


def from_list(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Turn `[{Key, Value}]` into a mapping. Raises ValidationException for repeated and reserved keys."""
    found: dict[str, str] = {}
    for tag in tags:
        key = tag["Key"]
        if key.lower().startswith(_RESERVED):
            raise ValidationException(f"Tag keys that start with '{_RESERVED}' are reserved: '{key}'.")
        if key in found:
            raise ValidationException(f"The tag key '{key}' is given more than once.")
        found[key] = tag["Value"]
    return found


def _to_list(tags: Mapping[str, str]) -> Sequence[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
