"""Create, describe, list and delete, generic over Kind. A family adds what its Create checks and fills in."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar, Protocol

from clary.api.tags import from_list
from clary.core.ports import ListQuery, ResourceStore, SpecStore
from clary.core.resources import Kind, Partition, Resource
from clary.errors import AwsError, ValidationException
from clary.wire.dispatch import Caller

Request = dict[str, Any]
Answer = dict[str, Any]
Spec = Mapping[str, Any]

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
        name = request[self.kind.name_member]
        arn = self._partition.arn(self.kind, name)
        # First, since clients tell "it is there already" from all that may be wrong with a definition.
        if await self._store.get(self.kind, name) is not None:
            raise self._taken(name)
        spec = await self.prepare({member: value for member, value in request.items() if member != "Tags"})
        stored = await self._store.insert(Resource(self.kind.name, name, arn, spec, self.initial_status), tags)
        if stored is None:
            raise self._taken(name)
        return {self.kind.arn_member: arn}

    async def get(self, name: str) -> Resource:
        """Give the resource of that name or ARN, or raise the service's "Could not find"."""
        resource = await self._store.get(self.kind, self.stored_name(name))
        if resource is None:
            raise self.not_found(name)
        return resource

    async def describe(self, caller: Caller, request: Request) -> Answer:
        """Give what was created plus the status. The codec drops the members that are not in the answer's shape."""
        resource = await self.get(request[self.kind.name_member])
        return {**resource.spec, **self._summary(resource), **resource.status}

    async def list(self, caller: Caller, request: Request) -> Answer:
        """Give a page of summaries; NextToken only where there are more."""
        query = self.query(request)
        if (token := request.get("NextToken")) is not None:
            query = replace(query, after=_position(self.kind, query, token))
        page = await self._store.list(self.kind, query)
        member = self.kind.list_member or self.kind.plural
        answer: Answer = {member: [self._summary(resource) for resource in page.resources]}
        if page.next is not None:
            answer["NextToken"] = _token(self.kind, query, page.next)
        return answer

    async def delete(self, caller: Caller, request: Request) -> None:
        """Remove the resource, whoever uses it: the service does not ask either."""
        name = request[self.kind.name_member]
        if not await self._store.remove(self.kind, self.stored_name(name)):
            raise self.not_found(name)

    def stored_name(self, name_or_arn: str) -> str:
        """Give the name under which the store has a resource."""
        return self._partition.name_of(self.kind, name_or_arn)

    def query(self, request: Request) -> ListQuery:
        """Translate a List request; a family adds the filters of its own."""
        return list_query(request, self.kind)

    def not_found(self, name: str) -> ValidationException:
        """Make the error for a name or ARN that no resource of this kind has."""
        return ValidationException(self._words(self.kind.missing, name))

    def _taken(self, name: str) -> AwsError:
        words, code = self._words(self.kind.taken, name), self.kind.taken_code
        return ValidationException(words) if not code else AwsError(words, code=code, status=400)

    def _words(self, text: str, name: str) -> str:
        arn = name if name.startswith("arn:") else self._partition.arn(self.kind, name)
        return text.format(title=self.kind.title, arn=arn, name=name)

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


class AmendableStore(ResourceStore, SpecStore, Protocol):
    """What an amendable kind is kept in."""


class Amendable(Crud):
    """A kind whose resources change after their creation."""

    def __init__(self, store: AmendableStore, partition: Partition) -> None:
        super().__init__(store, partition)
        self._specs = store

    async def amend(self, name: str, change: Callable[[Spec], Spec]) -> Resource:
        """Replace the spec by what `change` makes of it, which is asked again when somebody else was faster.

        Raises ValidationException for an unknown name, and whatever `change` raises.
        """
        while True:
            resource = await self.get(name)
            amended = await self._specs.replace(resource, change(resource.spec))
            if amended is not None:
                return amended


def list_query(request: Request, kind: Kind) -> ListQuery:
    """Translate the members that all List operations share, defaults included; the position is not among them."""
    order = "Ascending" if kind.ascending else "Descending"
    return ListQuery(
        sort_by=request.get("SortBy", "CreationTime"),
        descending=request.get("SortOrder", order) == "Descending",
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
