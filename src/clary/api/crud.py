"""Create, describe, list and delete, generic over Kind. A family adds what its Create checks and fills in."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

from clary.api.tags import from_list
from clary.core.ports import ListQuery, ResourceStore
from clary.core.resources import Kind, Partition, Resource
from clary.errors import ValidationException
from clary.wire.dispatch import Caller

Request = dict[str, Any]
Answer = dict[str, Any]

_DEFAULT_PAGE = 10
"""The service's, for every List operation of the hosting API (MaxResults allows up to 100)."""
_DIGEST_SIZE = 12


class Crud:
    """The four operations of one kind. Each handler takes and gives members under the wire's own names."""

    kind: ClassVar[Kind]
    initial_status: ClassVar[Mapping[str, object]] = {}

    def __init__(self, store: ResourceStore, partition: Partition) -> None:
        self._store = store
        self._partition = partition

    async def prepare(self, request: Request) -> dict[str, object]:
        """Check what the model cannot express and give the spec to store: the request with defaults filled in.

        Raises ValidationException.
        """
        return request

    async def create(self, caller: Caller, request: Request) -> Answer:
        """Store a new resource with its tags and give its ARN."""
        tags = from_list(request.get("Tags", []))
        spec = await self.prepare({member: value for member, value in request.items() if member != "Tags"})
        name = request[self.kind.name_member]
        arn = self._partition.arn(self.kind, name)
        stored = await self._store.insert(Resource(self.kind.name, name, arn, spec, self.initial_status), tags)
        if stored is None:
            raise ValidationException(f'Cannot create already existing {self.kind.title} "{arn}".')
        return {self.kind.arn_member: arn}

    async def get(self, name: str) -> Resource:
        """Give the resource of that name, or raise the service's "Could not find"."""
        resource = await self._store.get(self.kind, name)
        if resource is None:
            raise self.not_found(name)
        return resource

    async def describe(self, caller: Caller, request: Request) -> Answer:
        """Give what was created plus the status. The codec drops the members that are not in the answer's shape."""
        resource = await self.get(request[self.kind.name_member])
        return {**resource.spec, **self._summary(resource), **resource.status}

    async def list(self, caller: Caller, request: Request) -> Answer:
        """Give a page of summaries; NextToken only where there are more."""
        query = list_query(request)
        if (token := request.get("NextToken")) is not None:
            query = replace(query, after=_position(self.kind, query, token))
        page = await self._store.list(self.kind, query)
        answer: Answer = {self.kind.plural: [self._summary(resource) for resource in page.resources]}
        if page.next is not None:
            answer["NextToken"] = _token(self.kind, query, page.next)
        return answer

    async def delete(self, caller: Caller, request: Request) -> None:
        """Remove the resource, whoever uses it: the service does not ask either."""
        name = request[self.kind.name_member]
        if not await self._store.remove(self.kind, name):
            raise self.not_found(name)

    def not_found(self, name: str) -> ValidationException:
        """Make the error for a name that no resource of this kind has."""
        return ValidationException(f'Could not find {self.kind.title} "{self._partition.arn(self.kind, name)}".')

    def _summary(self, resource: Resource) -> Answer:
        summary: Answer = {
            self.kind.name_member: resource.name,
            self.kind.arn_member: resource.arn,
            "CreationTime": resource.created_at,
            "LastModifiedTime": resource.modified_at,
        }
        if self.kind.status_member:
            summary[self.kind.status_member] = resource.status[self.kind.status_member]
        return summary


def list_query(request: Request) -> ListQuery:
    """Translate the members that all List operations share, defaults included; the position is not among them."""
    return ListQuery(
        sort_by=request.get("SortBy", "CreationTime"),
        descending=request.get("SortOrder", "Descending") == "Descending",
        limit=request.get("MaxResults", _DEFAULT_PAGE),
        name_contains=request.get("NameContains"),
        created_before=request.get("CreationTimeBefore"),
        created_after=request.get("CreationTimeAfter"),
        modified_before=request.get("LastModifiedTimeBefore"),
        modified_after=request.get("LastModifiedTimeAfter"),
        status_equals=request.get("StatusEquals"),
    )


def _token(kind: Kind, query: ListQuery, position: tuple[str | float, int]) -> str:
    """Write where the next page starts."""
    return _seal(kind, query, json.dumps(position).encode())


def _position(kind: Kind, query: ListQuery, token: str) -> tuple[str | float, int]:
    """Read a page token. Raises ValidationException for one that this list, so filtered and sorted, did not give."""
    try:
        place = base64.urlsafe_b64decode(token)[_DIGEST_SIZE:]
    except ValueError:
        place = b""
    # Sealing it again checks all at once: the digest, the filters, and base64's liberties in spelling.
    if _seal(kind, query, place) != token:
        raise ValidationException("Invalid pagination token: use it with the filters and the order that it came from.")
    value, id = json.loads(place)
    return value, id


def _seal(kind: Kind, query: ListQuery, place: bytes) -> str:
    """Bind a place to what is listed. The page size is no part of it: clients may change that on the way."""
    listed = [kind.name, asdict(replace(query, limit=0, after=None))]
    digest = hashlib.sha256(json.dumps(listed).encode() + place).digest()[:_DIGEST_SIZE]
    return base64.urlsafe_b64encode(digest + place).decode()
